"""Reading of data files from outside: everything that a file declares is checked before memory is used for it."""
