package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

var background = context.Background()

// switches say how a VM behaves.
type switches struct {
	Deaf       bool    // accepts a shutdown, and ignores it
	Fragile    bool    // does not start with nesting
	Elsewhere  bool    // another host has it registered, too, and runs it
	Noop       bool    // a change of it succeeds, and changes nothing
	KeepsFalse bool    // nestedHVEnabled reads false where the key was removed
	Shutdown   float64 // seconds from being asked to shut down until it is off
	ToolsLate  float64 // seconds from power-on until Tools run
	Tools      bool
	Python     bool
	RealPython bool // the guest's python3 is this machine's
	Slow       int  // answers in which an ended program still runs
	Forgets    bool // ended programs are not listed
}

var usual = switches{Tools: true, Python: true, Shutdown: 0.02, ToolsLate: 0.02}

// wanted is a VM to be made.
type wanted struct {
	Name     string
	Nested   *bool
	Key      *string // vhv.enable among its extraConfig
	Running  bool
	Hardware string
	Folder   string
	Secret   string
	Like     string // the simulator's VM whose place it has
	switches
}

// machine is a VM beside what the simulator has of it.
type machine struct {
	vm *simulator.VirtualMachine
	switches
	live   bool // whether it was started with nesting
	boots  int
	folder string // its guest's files
	guest  guest
}

func many(number int) wanted {
	return wanted{
		Name: fmt.Sprintf("guest-%05d", number), Nested: types.NewBool(number%3 == 0), Running: number%2 == 0,
		Hardware: "vmx-19", switches: usual,
	}
}

// make adds a VM: a copy of the simulator's own that it is to be like, or of that name, or else of its first.
func (p *peer) make(want wanted) *machine {
	from := p.stock[0].vm
	for _, each := range p.stock {
		if each.name == want.Like || (want.Like == "" && each.name == want.Name) {
			from = each.vm
		}
	}
	vm := from
	vm.Self.Value = ""
	identity := uuid.New().String()
	config, guest, summary := *from.Config, *from.Guest, *from.Summary.Guest
	config.Name, config.Uuid, config.InstanceUuid = want.Name, identity, uuid.New().String()
	config.Version, config.NestedHVEnabled, config.Annotation = want.Hardware, want.Nested, want.Secret
	config.ExtraConfig = []types.BaseOptionValue{&types.OptionValue{Key: "nvram", Value: want.Name + ".nvram"}}
	if want.Secret != "" {
		given := &types.OptionValue{Key: "guestinfo.userdata", Value: want.Secret}
		config.ExtraConfig = append(config.ExtraConfig, given)
	}
	if want.Key != nil {
		config.ExtraConfig = append(config.ExtraConfig, &types.OptionValue{Key: "vhv.enable", Value: *want.Key})
	}
	config.Files.VmPathName = fmt.Sprintf("[LocalDS_0] %s/%s.vmx", want.Name, want.Name)
	guest.GuestFamily, guest.GuestState = "linuxGuest", "notRunning"
	vm.Name, vm.Config, vm.Guest, vm.Summary.Guest = want.Name, &config, &guest, &summary
	vm.Summary.Config.Name, vm.Summary.Config.Uuid = want.Name, identity
	vm.Summary.Config.InstanceUuid, vm.Summary.Config.VmPathName = config.InstanceUuid, config.Files.VmPathName
	vm.Capability.NestedHVSupported = yes()
	vm.Runtime.PowerState, vm.Runtime.BootTime = types.VirtualMachinePowerStatePoweredOff, nil
	m := &machine{vm: &vm, switches: want.switches}
	parent := p.folderOf(&from, want.Folder)
	vm.Parent = &parent.Self
	simulator.Map.Put(m.vm)
	vm.EffectiveRole = []int32{p.role}
	vm.Summary.Vm = &m.vm.Self
	p.list(m.vm, parent)
	m.folder = filepath.Join(p.folder, "guests", vm.Self.Value)
	m.touched()
	p.mu.Lock()
	p.machines[vm.Self] = m
	p.mu.Unlock()
	if want.Running {
		m.locked(func() {
			m.boot(p)
			m.runTools(m.Tools) // it has run for long
		})
	}
	return m
}

func (p *peer) list(vm *simulator.VirtualMachine, parent *simulator.Folder) {
	simulator.Map.AppendReference(parent, &parent.ChildEntity, vm.Self)
	host := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
	simulator.Map.AppendReference(host, &host.Vm, vm.Self)
	pool := simulator.Map.Get(*vm.ResourcePool).(*simulator.ResourcePool)
	simulator.Map.AppendReference(pool, &pool.Vm, vm.Self)
}

// locked keeps others from reading the VM meanwhile.
func (m *machine) locked(work func()) { simulator.Map.WithLock(m.vm, work) }

// touched moves what tells one configuration from another.
func (m *machine) touched() {
	now := time.Now().UTC()
	m.vm.Config.Modified = now
	m.vm.Config.ChangeVersion = now.Format("2006-01-02T15:04:05.000000000Z")
}

func (m *machine) is(state types.VirtualMachinePowerState) bool {
	return m.vm.Runtime.PowerState == state
}

// key is the extraConfig of that name.
func (m *machine) key(name string) (string, bool) {
	for _, each := range m.vm.Config.ExtraConfig {
		option := each.GetOptionValue()
		if strings.EqualFold(option.Key, name) {
			return fmt.Sprint(option.Value), true
		}
	}
	return "", false
}

// nests is whether it would be started with nesting: the line in its .vmx decides, where there is one.
func (m *machine) nests() bool {
	if value, there := m.key("vhv.enable"); there {
		return strings.EqualFold(value, "TRUE")
	}
	enabled := m.vm.Config.NestedHVEnabled
	return enabled != nil && *enabled
}

// boot is a power-on: what is configured now is what the guest gets until it is off again.
func (m *machine) boot(p *peer) {
	m.live = m.nests()
	m.boots++
	now := time.Now()
	m.vm.Runtime.BootTime = &now
	m.vm.Runtime.FeatureRequirement = requirements(m.live)
	m.state(types.VirtualMachinePowerStatePoweredOn)
	m.guest = guest{}
	m.runTools(false) // installed or not, and not yet running
	if !m.Tools {
		return
	}
	if m.ToolsLate == 0 {
		m.runTools(true)
		return
	}
	boot := m.boots
	m.later(m.ToolsLate, func() {
		if m.boots == boot && m.is(types.VirtualMachinePowerStatePoweredOn) {
			m.runTools(true)
		}
	})
}

// requirements are what a running VM needs of a host that it moves to.
func requirements(nested bool) []types.VirtualMachineFeatureRequirement {
	needs := []string{"cpuid.SSE3", "cpuid.SSSE3", "cpuid.NX"}
	if nested {
		needs = append(needs, "cpuid.VMX")
	}
	var all []types.VirtualMachineFeatureRequirement
	for _, each := range needs {
		all = append(all, types.VirtualMachineFeatureRequirement{Key: each, FeatureName: each, Value: "Bool:Min:1"})
	}
	return all
}

// off is what is left of it without power.
func (m *machine) off() {
	m.end()
	m.live = false
	m.vm.Runtime.BootTime, m.vm.Runtime.FeatureRequirement = nil, nil
	m.runTools(false)
	m.state(types.VirtualMachinePowerStatePoweredOff)
}

// end ends what the guest runs.
func (m *machine) end() {
	m.guest.end()
	m.boots++
}

func (m *machine) state(now types.VirtualMachinePowerState) {
	simulator.Map.Update(m.vm, []types.PropertyChange{
		{Name: "runtime.powerState", Val: now}, {Name: "summary.runtime.powerState", Val: now},
	})
}

func (m *machine) runTools(running bool) {
	g := m.vm.Guest
	g.ToolsRunningStatus, g.GuestState = "guestToolsNotRunning", "notRunning"
	g.ToolsStatus, g.ToolsVersionStatus2 = types.VirtualMachineToolsStatusToolsNotRunning, "guestToolsUnmanaged"
	if running {
		g.ToolsRunningStatus, g.GuestState, g.ToolsStatus = "guestToolsRunning", "running", types.VirtualMachineToolsStatusToolsOk
	}
	if !m.Tools {
		g.ToolsStatus, g.ToolsVersionStatus2 = types.VirtualMachineToolsStatusToolsNotInstalled, "guestToolsNotInstalled"
	}
	g.GuestOperationsReady = types.NewBool(running)
	m.vm.Summary.Guest.ToolsRunningStatus, m.vm.Summary.Guest.ToolsStatus = g.ToolsRunningStatus, g.ToolsStatus
}

func (m *machine) later(seconds float64, work func()) {
	time.AfterFunc(time.Duration(seconds*float64(time.Second)), func() { m.locked(work) })
}

// temporary is a folder of the guest, made when it is first needed.
func (m *machine) temporary() string {
	folder := filepath.Join(m.folder, "tmp")
	must(os.MkdirAll(folder, 0o755))
	return folder
}
