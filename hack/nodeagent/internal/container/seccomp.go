// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// namespaceFlags are those of clone that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// everyone returns the system calls that a container may use without any
// capability, in the spirit of the runtimes' default. Others get EPERM.
// ptrace and process_vm_* are not in it, though some runtimes allow them.
func everyone() []string {
	return strings.Fields(`
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown clock_adjtime clock_getres
clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr
flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake
futimesat getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresuid getrlimit get_robust_list getrusage getsid getsockname
getsockopt get_thread_area gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listxattr
llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir
mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend
mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl
pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl
semget semop semtimedop sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer setpgid setpriority
setregid setresgid setresuid setreuid setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid
setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statmount statx
symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink
unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
arch_prctl modify_ldt`)
}

// withCap returns the system calls that a capability allows beside those of
// everyone. NET_ADMIN has none: netlink needs no call of its own.
func withCap(name string) []string {
	return strings.Fields(map[string]string{
		"DAC_READ_SEARCH": "open_by_handle_at",
		"SYS_ADMIN": `bpf clone fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr mount mount_setattr
			move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare`,
		"SYS_BOOT":       "reboot",
		"SYS_CHROOT":     "chroot",
		"SYS_MODULE":     "delete_module finit_module init_module",
		"SYS_PACCT":      "acct",
		"SYS_PTRACE":     "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
		"SYS_RAWIO":      "ioperm iopl",
		"SYS_TIME":       "clock_settime settimeofday",
		"SYS_TTY_CONFIG": "vhangup",
		"SYS_NICE":       "get_mempolicy mbind set_mempolicy",
		"SYSLOG":         "syslog",
		"BPF":            "bpf",
		"PERFMON":        "perf_event_open",
	}[name])
}

// Policy returns the filter for a process with these capabilities on this
// machine's architecture.
func Policy(caps []string) (*seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	names := everyone()
	for _, c := range caps {
		names = append(names, withCap(c)...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	// Some calls exist on some architectures alone.
	names = slices.DeleteFunc(names, func(n string) bool { _, ok := info.SyscallNames[n]; return !ok })
	group := seccomp.SyscallGroup{Names: names, Action: seccomp.ActionAllow}
	when := func(name string, arg uint32, op seccomp.Operation, v uint64) {
		group.NamesWithCondtions = append(group.NamesWithCondtions, seccomp.NameWithConditions{
			Name: name, Conditions: seccomp.ArgumentConditions{{Argument: arg, Operation: op, Value: v}},
		})
	}
	// Sockets of virtual machines would lead past every firewall.
	when("socket", 0, seccomp.NotEqual, unix.AF_VSOCK)
	for _, persona := range []uint64{0x0, 0x8, 0x20000, 0x20008, 0xffffffff} {
		when("personality", 0, seccomp.Equal, persona)
	}
	if !slices.Contains(names, "clone") {
		when("clone", 0, seccomp.BitsNotSet, namespaceFlags)
	}
	return &seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{group}}, nil
}

// loadFilter puts the calling thread, and what it becomes, under the filter.
func loadFilter(caps []string) error {
	p, err := Policy(caps)
	if err != nil {
		return err
	}
	program, err := p.Assemble()
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	if !slices.Contains(caps, "SYS_ADMIN") {
		// The flags of clone3 are in memory, where a filter can't look. C
		// libraries go back to clone on this errno alone.
		const enosys = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
		program = append([]bpf.Instruction{
			bpf.LoadAbsolute{Off: 0, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLONE3, SkipFalse: 1},
			bpf.RetConstant{Val: enosys},
		}, program...)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	code := make([]unix.SockFilter, 0, len(raw))
	for _, i := range raw {
		code = append(code, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	f := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&f)), 0, 0)
	runtime.KeepAlive(&f)
	if err != nil {
		return fmt.Errorf("seccomp filter: %w", err)
	}
	return nil
}
