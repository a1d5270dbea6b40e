"""A process's stay with the server: opened when needed, held in the background, told what is mapped."""
