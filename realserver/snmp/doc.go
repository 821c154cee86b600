// Package snmp asks hosts that run no agent of ours for their load: by UCD-SNMP-MIB, as
// Net-SNMP's snmpd has it, or for one object.
//
// It owns the questions, their pace, the secrets' files and what loads are made of. It
// knows no service, and does not judge loads: director/offer turns them into weights.
//
// Start reading at Poller; a meter says what is asked, a session asks it.
package snmp
