package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// guest is what runs in a VM, as real processes of this machine.
//
// Their PATH is one folder: with programs of this machine, and with a python3 and a sh that know nestvirt's probe and
// answer it by what the VM was started with. Its file is named by NV_INSIDE.
type guest struct {
	processes []*process
}

type process struct {
	mu   sync.Mutex
	info types.GuestProcessInfo
	slow int
}

// end kills all, as a loss of power does.
func (g *guest) end() {
	for _, each := range g.processes {
		each.kill()
	}
	g.processes = nil
}

func (x *process) kill() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.info.EndTime == nil {
		_ = syscall.Kill(-int(x.info.Pid), syscall.SIGKILL)
	}
}

// seen is what the guest's Tools tell of it.
func (x *process) seen() types.GuestProcessInfo {
	x.mu.Lock()
	defer x.mu.Unlock()
	info := x.info
	if info.EndTime != nil && x.slow > 0 {
		x.slow--
		info.EndTime, info.ExitCode = nil, 0
	}
	return info
}

// inGuest does something in a guest, if it lets these credentials in.
func (p *peer) inGuest(ref types.ManagedObjectReference, auth types.BaseGuestAuthentication, do func(*machine) *failure) *failure {
	m, fault := p.machine(ref)
	if fault != nil {
		return fault
	}
	m.locked(func() {
		given, named := auth.(*types.NamePasswordAuthentication)
		switch {
		case m.unreachable() != nil:
			fault = m.unreachable()
		case !m.is(on):
			fault = m.wrongState(on)
		case m.vm.Guest.ToolsRunningStatus != "guestToolsRunning":
			words := "The guest operations agent could not be contacted."
			fault = &failure{&types.GuestOperationsUnavailable{}, words}
		case !named || given.Username != p.guestUser.user || given.Password != p.guestUser.password:
			words := "Failed to authenticate with the guest operating system using the supplied credentials."
			fault = &failure{&types.InvalidGuestLogin{}, words}
		default:
			fault = do(m)
		}
	})
	return fault
}

func (p *peer) answerGuest(body types.AnyType) (interface{}, *failure) {
	switch req := body.(type) {
	case *types.ValidateCredentialsInGuest:
		return &types.ValidateCredentialsInGuestResponse{}, p.inGuest(req.Vm, req.Auth, func(*machine) *failure { return nil })
	case *types.StartProgramInGuest:
		res := &types.StartProgramInGuestResponse{}
		return res, p.inGuest(req.Vm, req.Auth, func(m *machine) (fault *failure) {
			res.Returnval, fault = m.run(p, req.Spec.GetGuestProgramSpec())
			return fault
		})
	case *types.ListProcessesInGuest:
		res := &types.ListProcessesInGuestResponse{}
		return res, p.inGuest(req.Vm, req.Auth, func(m *machine) *failure {
			res.Returnval = m.list(req.Pids)
			return nil
		})
	case *types.TerminateProcessInGuest:
		return &types.TerminateProcessInGuestResponse{}, p.inGuest(req.Vm, req.Auth, func(m *machine) *failure {
			return m.terminate(req.Pid)
		})
	}
	return nil, nil
}

// run starts a program as Tools do: by the shell, with nothing on any of its streams.
func (m *machine) run(p *peer, spec *types.GuestProgramSpec) (int64, *failure) {
	if found, err := os.Stat(spec.ProgramPath); err != nil || found.IsDir() {
		return 0, noFile(spec.ProgramPath)
	}
	line := fmt.Sprintf("%q %s", spec.ProgramPath, spec.Arguments)
	command := exec.Command("/bin/sh", "-c", line)
	command.Dir = spec.WorkingDirectory
	if command.Dir == "" {
		command.Dir = m.temporary()
	}
	command.Env = append(m.environment(p), spec.EnvVariables...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return 0, &failure{&types.SystemError{Reason: err.Error()}, err.Error()}
	}
	started := &process{slow: m.Slow, info: types.GuestProcessInfo{
		Name: filepath.Base(spec.ProgramPath), Pid: int64(command.Process.Pid), Owner: p.guestUser.user,
		CmdLine: line, StartTime: time.Now(),
	}}
	m.guest.processes = append(m.guest.processes, started)
	go func() {
		_ = command.Wait()
		now := time.Now()
		started.mu.Lock()
		defer started.mu.Unlock()
		started.info.EndTime, started.info.ExitCode = &now, int32(command.ProcessState.ExitCode())
	}()
	return started.info.Pid, nil
}

func (m *machine) environment(p *peer) []string {
	inside := filepath.Join(m.folder, "inside")
	state := "no-flag"
	if m.live {
		state = "works"
	}
	must(os.MkdirAll(m.temporary(), 0o755))
	must(os.WriteFile(inside, []byte(state), 0o644))
	programs := filepath.Join(p.folder, "guest")
	path := filepath.Join(programs, "bin")
	switch {
	case m.RealPython:
		path = "/usr/local/bin:/usr/bin:/bin"
	case m.Python:
		path = filepath.Join(programs, "python") + ":" + path
	}
	return []string{"PATH=" + path, "HOME=" + m.temporary(), "NV_INSIDE=" + inside, "NV_ANSWERS=" + programs}
}

func (m *machine) list(pids []int64) (found []types.GuestProcessInfo) {
	wanted := map[int64]bool{}
	for _, each := range pids {
		wanted[each] = true
	}
	for _, each := range m.guest.processes {
		if len(pids) > 0 && !wanted[each.info.Pid] {
			continue
		}
		if seen := each.seen(); seen.EndTime == nil || !m.Forgets {
			found = append(found, seen)
		}
	}
	return found
}

func (m *machine) terminate(pid int64) *failure {
	for _, each := range m.guest.processes {
		if each.info.Pid == pid {
			each.kill()
			return nil
		}
	}
	return &failure{&types.GuestProcessNotFound{Pid: pid}, "There is no such process in the guest."}
}

func noFile(path string) *failure {
	return &failure{&types.FileNotFound{FileFault: types.FileFault{File: path}}, fmt.Sprintf("File %s was not found", path)}
}
