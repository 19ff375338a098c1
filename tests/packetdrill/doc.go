// Command packetdrill judges kit's TCP by the scripts of packetdrill (github.com/google/packetdrill), which is not part of
// kit: its binary and its scripts are named on the command line. It builds the shim (package shim over package host), runs every
// script of a folder in a network namespace of its own and in virtual time, and prints what passed and why the rest did not.
//
//	go run ./tests/packetdrill -packetdrill PATH -scripts FOLDER [-run REGEXP] [-v]
//
// It ends with status 1 where a script fails that is in the list of those that fit kit and not in the list of exceptions.
package main
