package bpf

// Schedulers are the names of the schedulers, ipvsadm's, by their numbers in the
// ABI; the first is unused. It is the one table of both: one more scheduler is one
// more line.
var Schedulers = [...]string{
	KernelSchedulerSCHEDULER_RR:    "rr",
	KernelSchedulerSCHEDULER_WRR:   "wrr",
	KernelSchedulerSCHEDULER_SH:    "sh",
	KernelSchedulerSCHEDULER_MH:    "mh",
	KernelSchedulerSCHEDULER_LC:    "lc",
	KernelSchedulerSCHEDULER_WLC:   "wlc",
	KernelSchedulerSCHEDULER_SED:   "sed",
	KernelSchedulerSCHEDULER_NQ:    "nq",
	KernelSchedulerSCHEDULER_FO:    "fo",
	KernelSchedulerSCHEDULER_OVF:   "ovf",
	KernelSchedulerSCHEDULER_TWOS:  "twos",
	KernelSchedulerSCHEDULER_DH:    "dh",
	KernelSchedulerSCHEDULER_LBLC:  "lblc",
	KernelSchedulerSCHEDULER_LBLCR: "lblcr",
}

// SchedulerNumber returns the number of the scheduler; 0 if it has none.
func SchedulerNumber(name string) KernelScheduler {
	for number, known := range Schedulers {
		if number > 0 && known == name {
			return KernelScheduler(number)
		}
	}
	return 0
}

// SchedulerName returns the name of the number; empty if it is none's.
func SchedulerName(number uint8) string {
	if int(number) >= len(Schedulers) {
		return ""
	}
	return Schedulers[number]
}
