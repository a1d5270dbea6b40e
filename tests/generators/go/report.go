// What the drivers in Go share: a step is a function, a line tells how it went, and the next one follows in any case.
package main

import (
	"fmt"
	"os"
	"strconv"
)

// step prints `ok NAME [what do read]`, or `FAIL NAME: why` if do panics.
func step(name string, do func() string) {
	defer func() {
		if why := recover(); why != nil {
			fmt.Printf("FAIL %s: %v\n", name, why)
		}
	}()
	told := do()
	fmt.Println("ok", name, told)
}

// want panics unless what was read is what is right.
func want[Value comparable](what string, read, right Value) {
	if read != right {
		panic(fmt.Sprintf("%s is %v, want %v", what, read, right))
	}
}

func must[Value any](value Value, err error) Value {
	if err != nil {
		panic(err)
	}
	return value
}

// arguments are the server's URL, that of the server of tomorrow, and the large region's size.
func arguments() (url, tomorrow string, largeBytes int64) {
	return os.Args[1], os.Args[2], must(strconv.ParseInt(os.Args[3], 10, 64))
}

func pointer[Value any](value Value) *Value { return &value }
