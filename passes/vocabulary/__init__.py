"""Which ids stay: tables lose the rows that no id reaches."""
