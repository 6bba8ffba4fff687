package madcrowtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// dieWithParent makes the child end when this process does, however it ends.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// isStopped says whether every thread of the process is frozen.
func isStopped(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(tasks) == 0 {
		return false
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
		// "pid (name) T …"; the name may hold brackets of its own.
		end := bytes.LastIndexByte(stat, ')')
		if err != nil || end < 0 || end+2 >= len(stat) || stat[end+2] != 'T' {
			return false
		}
	}
	return true
}
