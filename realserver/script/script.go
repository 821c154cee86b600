package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxOutput is how much of a command's output is kept, bytes. The rest is read and
// thrown away, so that the command does not wait.
const maxOutput = 4096

// farewell is how long what a command that has ended said is waited for.
const farewell = 500 * time.Millisecond

// Command is a program that is run as a user, in a process group of its own. Whatever it
// has begun ends with it or with its time, unless it has left the group. Not safe for
// concurrent use.
type Command struct {
	// Args are the program's path and its arguments.
	Args []string
	// User is a name or a number.
	User string
	// Helper runs it; nil: this process does.
	Helper *Helper

	// left is closed when the run before, that could not be ended, is gone; nil: there
	// is none.
	left chan struct{}
}

// Run runs the command and returns the beginning of what it says, and its status. An
// error is of one that could not be run or had no end in time, which wraps the
// context's.
func (c *Command) Run(ctx context.Context) (string, int, error) {
	if c.left != nil {
		select {
		case <-c.left:
			c.left = nil
		default:
			return "", 0, fmt.Errorf("run %s: the one before has not ended", c.Args[0])
		}
	}
	if c.Helper != nil {
		return c.Helper.run(ctx, c)
	}
	return c.execute(ctx)
}

// execute does that in this process.
func (c *Command) execute(ctx context.Context) (string, int, error) {
	who, err := lookUser(c.User)
	if err != nil {
		return "", 0, err
	}
	program, err := trustedProgram(c.Args[0], who.uid)
	if err != nil {
		return "", 0, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return "", 0, fmt.Errorf("run %s: %w", program, err)
	}
	defer read.Close()
	cmd := &exec.Cmd{
		Path: program, Args: c.Args, Dir: "/", Stdout: write, Stderr: write,
		Env:         []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "HOME=/"},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Credential: who.credential()},
	}
	err = startBare(cmd)
	_ = write.Close() // The script's copy is what counts.
	if err != nil {
		return "", 0, fmt.Errorf("run %s as %s: %w", program, c.User, err)
	}
	heard := make(chan string, 1)
	go func() { heard <- hear(read) }()
	err = c.supervise(ctx, cmd)
	// Who has left the group may hold the pipe open for ever.
	_ = read.SetReadDeadline(time.Now().Add(farewell))
	output := <-heard
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && (err == nil || errors.As(err, &exit)):
		return output, 0, fmt.Errorf("run %s: %w", program, ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() < 0:
		return output, 0, fmt.Errorf("run %s: ended by a signal: %s", program, exit)
	case errors.As(err, &exit):
		return output, exit.ExitCode(), nil
	case err != nil:
		return output, 0, fmt.Errorf("run %s: %w", program, err)
	}
	return output, 0, nil
}

// startBare starts the command without the capabilities that the daemon has as ambient
// ones: a user that is not root hands those on to whom it becomes (kernel:
// security/commoncap.c, cap_emulate_setxuid, clears them for root alone).
func startBare(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		// Not unlocked: the thread that has lost them ends with this function.
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			started <- fmt.Errorf("give up ambient capabilities: %w", err)
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}

// patience is how long an ended group may take to be gone. A process that waits for a
// dead disk is not ended by any signal.
const patience = time.Second

// supervise waits for the command, at most until ctx ends, and ends its group.
func (c *Command) supervise(ctx context.Context, cmd *exec.Cmd) error {
	group := -cmd.Process.Pid
	ended := make(chan error, 1)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		err := awaitExit(cmd.Process.Pid)
		_ = unix.Kill(group, unix.SIGKILL) // Who is left of the group.
		ended <- errors.Join(err, cmd.Wait())
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	if err := unix.Kill(group, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		c.left = gone
		return fmt.Errorf("end it: %w", err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		c.left = gone
		return errors.New("it does not end")
	}
}

// awaitExit waits until a process has ended. It is not reaped yet then, so that its
// number, the group's, is no one else's.
func awaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// hear keeps the beginning of what is said and reads on to the end.
func hear(r *os.File) string {
	kept := make([]byte, 0, maxOutput)
	var buffer [4096]byte
	for {
		n, err := r.Read(buffer[:])
		kept = append(kept, buffer[:min(n, maxOutput-len(kept))]...)
		if err != nil {
			return strings.TrimSpace(strings.ToValidUTF8(strings.Map(func(r rune) rune {
				if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
					return '.'
				}
				return r
			}, string(kept)), "."))
		}
	}
}
