// Package tests holds what is true of the project as a whole: who imports whom, that the documents name what exists, and how
// kit behaves on a veth pair between real programs.
package tests
