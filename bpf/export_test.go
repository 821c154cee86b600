package bpf

// LBLCRExpiration is what the programs are loaded with.
const LBLCRExpiration = lblcrExpiration
