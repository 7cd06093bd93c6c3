// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// ExecRequest asks the supervisor to run a command. Standard input, output
// and error travel with it as file descriptors.
type ExecRequest struct {
	// Where is the namespace: a node, a pod, client, control or lan.
	Where string `json:"where"`
	// Argv is the command. "lab" is the lab program itself.
	Argv []string `json:"argv"`
	// Env is the caller's environment; the lab adds to it.
	Env []string `json:"env"`
	// Dir is the working folder.
	Dir string `json:"dir"`
	// DropCaps keeps only Caps, see nsexec.Options.
	DropCaps bool     `json:"dropCaps,omitempty"`
	Caps     []string `json:"caps,omitempty"`
	// Stdin is the command's standard input; nil means the caller's.
	Stdin *os.File `json:"-"`
}

// reply is the one answer to a request. Before it the client may send any
// number of signalled values.
type reply struct {
	Exit  int    `json:"exit"`
	Error string `json:"error,omitempty"`
}

type signalled struct {
	Signal int `json:"signal"`
}

const maxMessage = 16 << 20

// sendRequest writes a length, the request and, with the first bytes, files.
func sendRequest(c *net.UnixConn, req ExecRequest, files []*os.File) error {
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	if _, _, err := c.WriteMsgUnix(head, unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	_, err = c.Write(b)
	return err
}

func receiveRequest(c *net.UnixConn) (req ExecRequest, files []*os.File, err error) {
	head, oob := make([]byte, 4), make([]byte, 256)
	n, oobn, _, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return req, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return req, nil, fmt.Errorf("decode control message: %w", err)
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return req, files, fmt.Errorf("decode descriptors: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), ""))
		}
	}
	if n != len(head) || len(files) != 3 {
		return req, files, fmt.Errorf("request with %d bytes of length and %d files", n, len(files))
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxMessage {
		return req, files, fmt.Errorf("request of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(c, b); err != nil {
		return req, files, fmt.Errorf("read request: %w", err)
	}
	return req, files, json.Unmarshal(b, &req)
}

// Exec runs a command in a running lab with the caller's standard input,
// output and error, passes signals on, and returns the command's exit status
// (128+n where signal n ended it). If the caller dies, so does the command.
func Exec(s State, req ExecRequest) (int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.Socket(), Net: "unix"})
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
			return 0, fmt.Errorf("lab %s %w: start it with `lab up --name %s`", s.Name, ErrDown, s.Name)
		}
		return 0, fmt.Errorf("lab %s: %w", s.Name, err)
	}
	defer conn.Close()
	req.Env = os.Environ()
	if req.Dir == "" {
		req.Dir, _ = os.Getwd()
	}
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(sigs)
	if req.Stdin == nil {
		req.Stdin = os.Stdin
	}
	if err := sendRequest(conn, req, []*os.File{req.Stdin, os.Stdout, os.Stderr}); err != nil {
		return 0, fmt.Errorf("lab %s: send request: %w", s.Name, err)
	}
	go func() {
		enc := json.NewEncoder(conn)
		for sig := range sigs {
			if n, ok := sig.(unix.Signal); ok {
				_ = enc.Encode(signalled{Signal: int(n)})
			}
		}
	}()
	var rep reply
	if err := json.NewDecoder(conn).Decode(&rep); err != nil {
		return 0, fmt.Errorf("lab %s ended before the command did: %w", s.Name, err)
	}
	if rep.Error != "" {
		return 0, fmt.Errorf("lab %s: %s", s.Name, rep.Error)
	}
	return rep.Exit, nil
}
