module drive

go 1.24
