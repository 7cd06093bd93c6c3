// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/svcscope/svcscope/hack/lab/internal/nsexec"
)

// server runs commands for clients of the control socket.
type server struct {
	log *slog.Logger
	// env is put in front of every command's environment.
	env []string
	// path is put in front of every command's PATH.
	path string
	// names are the namespaces; "lan" is the supervisor's own.
	names []string
}

func (s *server) serve(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			s.log.Error("accept", "err", err)
			return
		}
		go s.handle(c)
	}
}

func (s *server) handle(c *net.UnixConn) {
	defer c.Close()
	req, files, err := receiveRequest(c)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		s.log.Warn("request", "err", err)
		return
	}
	rep := s.run(c, req, files)
	if err := json.NewEncoder(c).Encode(rep); err != nil {
		s.log.Debug("reply", "err", err)
	}
}

func (s *server) run(c *net.UnixConn, req ExecRequest, files []*os.File) reply {
	if !slices.Contains(s.names, req.Where) {
		return reply{Error: "no namespace " + req.Where + "; there are " + strings.Join(s.names, ", ")}
	}
	if len(req.Argv) == 0 {
		return reply{Error: "no command to run"}
	}
	o := nsexec.Options{Netns: req.Where, Hostname: req.Where, DropCaps: req.DropCaps, Caps: req.Caps}
	if req.Where == "lan" {
		o.Netns, o.Hostname = "", ""
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = nsexec.Argv("lab", o, req.Argv)
	cmd.Env = s.environ(req.Env, req.Where)
	cmd.Dir = req.Dir
	if fi, err := os.Stat(req.Dir); err != nil || !fi.IsDir() {
		cmd.Dir = "/"
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return reply{Error: err.Error()}
	}
	ended := make(chan struct{})
	go s.relay(c, cmd.Process.Pid, ended)
	err := cmd.Wait()
	close(ended)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return reply{}
	case !errors.As(err, &exit):
		return reply{Error: err.Error()}
	}
	if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
		return reply{Exit: 128 + int(ws.Signal())}
	}
	return reply{Exit: exit.ExitCode()}
}

// relay passes the client's signals on and ends the command's process group
// when the client is gone.
func (s *server) relay(c *net.UnixConn, pgid int, ended <-chan struct{}) {
	dec := json.NewDecoder(c)
	for {
		var sig signalled
		err := dec.Decode(&sig)
		select {
		case <-ended:
			return
		default:
		}
		if err != nil {
			_ = unix.Kill(-pgid, unix.SIGKILL)
			return
		}
		_ = unix.Kill(-pgid, unix.Signal(sig.Signal)) // it may just have ended
	}
}

func (s *server) environ(caller []string, where string) []string {
	env := append(slices.Clone(caller), s.env...)
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range caller {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok && v != "" {
			path = v + ":/usr/sbin:/sbin"
		}
	}
	return append(env, "PATH="+s.path+":"+path, "LAB_WHERE="+where)
}
