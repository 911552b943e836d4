package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	on        = types.VirtualMachinePowerStatePoweredOn
	off       = types.VirtualMachinePowerStatePoweredOff
	suspended = types.VirtualMachinePowerStateSuspended
	newest    = 21 // hardware version
)

func isTask(method string) bool { return strings.HasSuffix(method, "_Task") }

func (m *machine) unless(wanted types.VirtualMachinePowerState) *failure {
	if m.is(wanted) {
		return nil
	}
	return m.wrongState(wanted)
}

func (m *machine) wrongState(wanted types.VirtualMachinePowerState) *failure {
	now := m.vm.Runtime.PowerState
	shown := map[types.VirtualMachinePowerState]string{on: "Powered on", off: "Powered off", suspended: "Suspended"}
	return &failure{
		&types.InvalidPowerState{RequestedState: wanted, ExistingState: now},
		fmt.Sprintf("The attempted operation cannot be performed in the current state (%s).", shown[now]),
	}
}

// unreachable is a VM whose host vCenter cannot ask.
func (m *machine) unreachable() *failure {
	host := simulator.Map.Get(*m.vm.Runtime.Host).(*simulator.HostSystem)
	if host.Runtime.ConnectionState == types.HostSystemConnectionStateConnected {
		return nil
	}
	return &failure{&types.HostNotConnected{}, "Unable to communicate with the remote host, since it is disconnected."}
}

// inUse is what a host says of files that another host has open, as of a VM that is registered on both and runs there.
func (m *machine) inUse() *failure {
	if !m.Elsewhere {
		return nil
	}
	file := m.vm.Config.Files.VmPathName
	fault := &types.FileLocked{FileFault: types.FileFault{File: file}}
	return &failure{fault, fmt.Sprintf("Unable to access file %s since it is locked", file)}
}

func notSupported() *failure {
	return &failure{&types.NotSupported{}, "The operation is not supported on the object."}
}

func (p *peer) answerPower(body types.AnyType) (interface{}, *failure) {
	switch req := body.(type) {
	case *types.ReconfigVM_Task:
		ref, fault := p.work(req.This, "ReconfigVM_Task", func(m *machine) *failure { return p.reconfigure(m, req.Spec) })
		return &types.ReconfigVM_TaskResponse{Returnval: ref}, fault
	case *types.UpgradeVM_Task:
		ref, fault := p.work(req.This, "UpgradeVM_Task", func(m *machine) *failure { return p.upgrade(m, req.Version) })
		return &types.UpgradeVM_TaskResponse{Returnval: ref}, fault
	case *types.PowerOnVM_Task:
		ref, fault := p.work(req.This, "PowerOnVM_Task", p.powerOn)
		return &types.PowerOnVM_TaskResponse{Returnval: ref}, fault
	case *types.PowerOffVM_Task:
		ref, fault := p.work(req.This, "PowerOffVM_Task", (*machine).cut)
		return &types.PowerOffVM_TaskResponse{Returnval: ref}, fault
	case *types.PowerOnMultiVM_Task:
		ref, fault := p.powerOnMany(req.Vm)
		return &types.PowerOnMultiVM_TaskResponse{Returnval: ref}, fault
	case *types.CancelTask:
		return &types.CancelTaskResponse{}, p.cancel(req.This)
	case *types.ApplyRecommendation:
		return &types.ApplyRecommendationResponse{}, p.applyRecommendation(req.Key)
	case *types.ShutdownGuest:
		return &types.ShutdownGuestResponse{}, p.guestPower(req.This, (*machine).shutDown)
	case *types.RebootGuest:
		return &types.RebootGuestResponse{}, p.guestPower(req.This, func(*machine) {})
	}
	return nil, nil
}

// shownAs is what vSphere calls tasks (TaskInfo.descriptionId); they are in govmomi's list of a real vCenter's.
var shownAs = map[string]string{
	"ReconfigVM_Task": "VirtualMachine.reconfigure", "UpgradeVM_Task": "VirtualMachine.upgradeVirtualHardware",
	"PowerOnVM_Task": "VirtualMachine.powerOn", "PowerOffVM_Task": "VirtualMachine.powerOff",
	"PowerOnMultiVM_Task": "Datacenter.powerOnVm",
}

// ofDatacenter is what the task of a VM is called that its datacenter's has begun.
const ofDatacenter = "Datacenter.ExecuteVmPowerOnLRO"

// work is a task on one VM, which may have to fail.
func (p *peer) work(ref types.ManagedObjectReference, method string, do func(*machine) *failure) (types.ManagedObjectReference, *failure) {
	return p.workAs(shownAs[method], ref, method, do)
}

func (p *peer) workAs(name string, ref types.ManagedObjectReference, method string, do func(*machine) *failure) (types.ManagedObjectReference, *failure) {
	m, fault := p.machine(ref)
	if fault != nil {
		return ref, fault
	}
	return p.task(m, name, func() (types.AnyType, *failure) {
		if planned := p.failureOf(method); planned != nil {
			return nil, planned
		}
		if fault := m.unreachable(); fault != nil {
			return nil, fault
		}
		return nil, do(m)
	}), nil
}

func (p *peer) reconfigure(m *machine, spec types.VirtualMachineConfigSpec) *failure {
	rest := spec
	rest.ChangeVersion, rest.NestedHVEnabled, rest.ExtraConfig = "", nil, nil
	if !reflect.DeepEqual(rest, types.VirtualMachineConfigSpec{}) {
		return &failure{&types.InvalidArgument{InvalidProperty: "configSpec"}, "nothing else is to be written here"}
	}
	if spec.ChangeVersion != "" && spec.ChangeVersion != m.vm.Config.ChangeVersion {
		return &failure{&types.ConcurrentAccess{}, "The operation is based on out-of-date information."}
	}
	if fault := m.inUse(); fault != nil {
		return fault
	}
	if fault := m.mayNest(spec.NestedHVEnabled); fault != nil {
		return fault
	}
	m.touched()
	if m.Noop {
		return nil
	}
	if spec.NestedHVEnabled != nil {
		m.vm.Config.NestedHVEnabled = spec.NestedHVEnabled
	}
	for _, each := range spec.ExtraConfig {
		m.setKey(each.GetOptionValue().Key, fmt.Sprint(each.GetOptionValue().Value))
		if strings.EqualFold(each.GetOptionValue().Key, "vhv.enable") && spec.NestedHVEnabled == nil && m.is(off) {
			m.follow()
		}
	}
	return nil
}

// follow: the field and the line in the .vmx are one switch, so that without the line the field is unset.
func (m *machine) follow() {
	if _, there := m.key("vhv.enable"); there {
		return
	}
	m.vm.Config.NestedHVEnabled = nil
	if m.KeepsFalse {
		m.vm.Config.NestedHVEnabled = types.NewBool(false)
	}
}

// setKey replaces an extraConfig; the empty value removes it.
func (m *machine) setKey(key, value string) {
	var kept []types.BaseOptionValue
	for _, each := range m.vm.Config.ExtraConfig {
		if !strings.EqualFold(each.GetOptionValue().Key, key) {
			kept = append(kept, each)
		}
	}
	if value != "" {
		kept = append(kept, &types.OptionValue{Key: key, Value: value})
	}
	m.vm.Config.ExtraConfig = kept
}

// mayNest is what vCenter has against a change of nestedHVEnabled.
func (m *machine) mayNest(wanted *bool) *failure {
	now := m.vm.Config.NestedHVEnabled
	if m.vm.Config.Template {
		return notSupported()
	}
	if wanted == nil || (now != nil && *now == *wanted) {
		return nil
	}
	if fault := m.unless(off); fault != nil {
		return fault
	}
	host := simulator.Map.Get(*m.vm.Runtime.Host).(*simulator.HostSystem)
	able := host.Capability != nil && host.Capability.NestedHVSupported != nil && *host.Capability.NestedHVSupported
	protected := m.vm.Runtime.FaultToleranceState
	based := m.vm.Config.Flags.VbsEnabled
	switch {
	case *wanted && version(m.vm.Config.Version) < 9:
		return invalid("configSpec.nestedHVEnabled")
	case *wanted && !able:
		return notSupported()
	case *wanted && protected != "" && protected != types.VirtualMachineFaultToleranceStateNotConfigured:
		return invalid("configSpec.nestedHVEnabled")
	case !*wanted && based != nil && *based:
		return invalid("configSpec.flags.vbsEnabled")
	}
	return nil
}

func invalid(property string) *failure {
	words := fmt.Sprintf("Invalid virtual machine configuration. A specified parameter was not correct: %s", property)
	return &failure{&types.InvalidVmConfig{Property: property}, words}
}

func version(hardware string) (number int) {
	_, _ = fmt.Sscanf(hardware, "vmx-%d", &number)
	return number
}

func (p *peer) upgrade(m *machine, wanted string) *failure {
	if fault := m.unless(off); fault != nil {
		return fault
	}
	if wanted == "" {
		wanted = fmt.Sprintf("vmx-%d", newest)
	}
	switch now := version(m.vm.Config.Version); {
	case version(wanted) == 0 || version(wanted) > newest:
		return notSupported()
	case version(wanted) <= now:
		return &failure{&types.AlreadyUpgraded{}, "The virtual machine is already at or above that version."}
	}
	m.vm.Config.Version = wanted
	m.touched()
	return nil
}

func (p *peer) powerOn(m *machine) *failure {
	switch {
	case m.vm.Config.Template:
		return notSupported()
	case m.is(on):
		return m.wrongState(off)
	case m.inUse() != nil:
		return m.inUse()
	case m.is(suspended):
		m.state(on) // it goes on where it was, with what it had
		m.runTools(m.Tools)
	case m.Fragile && m.nests():
		words := "Virtualized Intel VT-x/EPT is not supported on this platform. Module 'HV' power on failed."
		return &failure{&types.GenericVmConfigFault{Reason: words}, words}
	default:
		m.boot(p)
	}
	return nil
}

func (m *machine) cut() *failure {
	if m.is(off) {
		return m.wrongState(on)
	}
	m.off()
	return nil
}

// powerOnMany is how vCenter starts VMs, so that DRS can choose a host. It is a task of the datacenter, which begins
// one of each VM. What cannot be tried is no error of the task.
func (p *peer) powerOnMany(refs []types.ManagedObjectReference) (types.ManagedObjectReference, *failure) {
	for _, ref := range refs {
		if _, fault := p.machine(ref); fault != nil {
			return ref, fault
		}
	}
	datacenter := p.datacenterOf(refs[0])
	return p.taskOn(datacenter, &datacenter.RecentTask, shownAs["PowerOnMultiVM_Task"], func() (types.AnyType, *failure) {
		return p.startMany(refs)
	}), nil
}

func (p *peer) startMany(refs []types.ManagedObjectReference) (types.AnyType, *failure) {
	var result types.ClusterPowerOnVmResult
	planned := p.failureOf("PowerOnMultiVM_Task")
	for _, each := range refs {
		ref := each
		switch {
		case planned != nil:
			tried := types.ClusterNotAttemptedVmInfo{Vm: ref, Fault: planned.localized()}
			result.NotAttempted = append(result.NotAttempted, tried)
		case p.drsManual:
			p.manual = append(p.manual, ref)
			result.Recommendations = append(result.Recommendations, types.ClusterRecommendation{
				Key: fmt.Sprint(len(p.manual)), Type: "V1", Rating: 5, Reason: "powerOnVm",
				ReasonText: "Power on the virtual machine with respect to its resource requirements", Target: p.clusterOf(ref),
			})
		default:
			task, fault := p.workAs(ofDatacenter, ref, "PowerOnVM_Task", p.powerOn)
			if fault != nil {
				return nil, fault
			}
			result.Attempted = append(result.Attempted, types.ClusterAttemptedVmInfo{Vm: ref, Task: &task})
		}
	}
	return result, nil
}

func (p *peer) datacenterOf(ref types.ManagedObjectReference) *simulator.Datacenter {
	for {
		switch entity := simulator.Map.Get(ref).(type) {
		case *simulator.Datacenter:
			return entity
		case mo.Entity:
			ref = *entity.Entity().Parent
		}
	}
}

func (p *peer) clusterOf(ref types.ManagedObjectReference) *types.ManagedObjectReference {
	vm := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	return simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem).Parent
}

func (p *peer) applyRecommendation(key string) *failure {
	for i, ref := range p.manual {
		if fmt.Sprint(i+1) == key {
			_, fault := p.work(ref, "PowerOnVM_Task", p.powerOn)
			return fault
		}
	}
	return &failure{&types.InvalidArgument{InvalidProperty: "key"}, "A specified parameter was not correct: key"}
}

func (p *peer) guestPower(ref types.ManagedObjectReference, do func(*machine)) (fault *failure) {
	m, fault := p.machine(ref)
	if fault != nil {
		return fault
	}
	m.locked(func() {
		if fault = m.unreachable(); fault != nil {
			return
		}
		if fault = m.unless(on); fault != nil {
			return
		}
		if m.vm.Guest.ToolsRunningStatus != "guestToolsRunning" {
			words := "Cannot complete operation because VMware Tools is not running in this virtual machine."
			fault = &failure{&types.ToolsUnavailable{}, words}
			return
		}
		do(m)
	})
	return fault
}

func (m *machine) shutDown() {
	if m.Deaf {
		return
	}
	boot := m.boots
	m.vm.Guest.GuestState = "shuttingDown"
	m.later(m.Shutdown, func() {
		if m.boots == boot && m.is(on) {
			m.off()
		}
	})
}
