package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type credentials struct{ user, password string }

// peer is the product beside what the simulator has of it.
type peer struct {
	service   *simulator.Service
	client    *vim25.Client // in process, not through the gate
	folder    string
	guestUser credentials
	addresses map[string]string // where guests' files are said to be
	failureOf func(method string) *failure

	thumbprint string // of the hosts' certificate
	stock      []stock
	role       int32

	mu         sync.Mutex
	machines   map[types.ManagedObjectReference]*machine
	manual     []types.ManagedObjectReference // what DRS only recommends to start
	drsManual  bool
	taskTime   time.Duration
	running    map[types.ManagedObjectReference]*time.Timer
	cancelable bool   // whether tasks can be cancelled
	where      string // a key of addresses
	files      map[string]transfer
}

// stock is one of the simulator's own VMs; it is what others are copied from.
type stock struct {
	vm   simulator.VirtualMachine
	name string
}

func newPeer(service *simulator.Service, folder string, guest credentials) *peer {
	client, err := vim25.NewClient(background, service)
	must(err)
	return &peer{
		service: service, client: client, folder: folder, guestUser: guest, role: administrator,
		machines: map[types.ManagedObjectReference]*machine{}, files: map[string]transfer{}, where: "host",
		running: map[types.ManagedObjectReference]*time.Timer{},
	}
}

func content() types.ServiceContent {
	return simulator.Map.Get(vim25.ServiceInstance).(*simulator.ServiceInstance).Content
}

// prepare gives hosts what the simulator's have not, and takes its VMs out: made anew, they are as all others.
func (p *peer) prepare(thumbprint string) {
	for _, each := range simulator.Map.All("HostSystem") {
		host := each.(*simulator.HostSystem)
		host.Capability = &types.HostCapability{NestedHVSupported: yes()}
	}
	for _, each := range simulator.Map.All("VirtualMachine") {
		vm := each.(*simulator.VirtualMachine)
		p.stock = append(p.stock, stock{*vm, vm.Name})
		p.remove(vm)
	}
	sort.Slice(p.stock, func(i, j int) bool { return p.stock[i].name < p.stock[j].name })
	p.settle()
	manager := simulator.Map.Get(*content().GuestOperationsManager).(*simulator.GuestOperationsManager)
	auth := &mo.GuestAuthManager{}
	auth.Self = types.ManagedObjectReference{Type: "GuestAuthManager", Value: "guestOperationsAuthManager"}
	manager.AuthManager = &auth.Self
	simulator.Map.Put(auth)
	collector := &collector{}
	collector.Self = content().PropertyCollector
	simulator.Map.Put(collector)
	p.thumbprint = thumbprint
	p.reset()
}

// settle puts the cluster's VMs on its first host: the simulator takes any.
func (p *peer) settle() {
	for i := range p.stock {
		vm := &p.stock[i].vm
		host := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
		cluster, ok := simulator.Map.Get(*host.Parent).(*simulator.ClusterComputeResource)
		if !ok {
			continue
		}
		for _, ref := range cluster.Host {
			if strings.HasSuffix(simulator.Map.Get(ref).(*simulator.HostSystem).Name, "_H0") {
				first := ref
				vm.Runtime.Host, vm.Summary.Runtime.Host = &first, &first
			}
		}
	}
}

// reset leaves the VMs that the simulator begins with, and nothing of what was set.
func (p *peer) reset() {
	p.mu.Lock()
	p.drsManual, p.taskTime, p.where, p.manual, p.cancelable = false, 0, "host", nil, false
	gone := p.machines
	p.machines = map[types.ManagedObjectReference]*machine{}
	p.mu.Unlock()
	for _, m := range gone {
		m.locked(func() { m.end() })
		p.remove(m.vm)
		_ = os.RemoveAll(m.folder)
	}
	for _, each := range simulator.Map.All("HostSystem") {
		host := each.(*simulator.HostSystem)
		simulator.Map.WithLock(host, func() {
			host.Capability.NestedHVSupported = yes()
			host.Runtime.InMaintenanceMode = false
			host.Runtime.ConnectionState = types.HostSystemConnectionStateConnected
			host.Summary.CurrentEVCModeKey, host.Summary.Config.SslThumbprint = "", p.thumbprint
		})
	}
	for _, each := range simulator.Map.All("Datacenter") {
		datacenter := each.(*simulator.Datacenter)
		simulator.Map.WithLock(datacenter, func() { datacenter.RecentTask = nil })
	}
	for _, each := range p.stock {
		p.make(wanted{Name: each.name, Running: true, Nested: types.NewBool(false), Hardware: "vmx-19", switches: usual})
	}
}

// close ends what guests still run.
func (p *peer) close() {
	for _, m := range p.all() {
		m.locked(func() { m.end() })
	}
}

func (p *peer) all() []*machine {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*machine
	for _, m := range p.machines {
		found = append(found, m)
	}
	return found
}

func (p *peer) machine(ref types.ManagedObjectReference) (*machine, *failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.machines[ref]; m != nil {
		return m, nil
	}
	words := "The object has already been deleted or has not been completely created"
	return nil, &failure{&types.ManagedObjectNotFound{Obj: ref}, words}
}

func (p *peer) named(name string) (*machine, error) {
	for _, m := range p.all() {
		if m.vm.Name == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("there is no VM %s", name)
}

// remove takes a VM out of all that lists it.
func (p *peer) remove(vm *simulator.VirtualMachine) {
	for _, each := range simulator.Map.All("") {
		entity := each
		simulator.Map.WithLock(entity, func() {
			switch holder := entity.(type) {
			case *simulator.Folder:
				simulator.RemoveReference(&holder.ChildEntity, vm.Self)
			case *simulator.HostSystem:
				simulator.RemoveReference(&holder.Vm, vm.Self)
			case *simulator.ResourcePool:
				simulator.RemoveReference(&holder.Vm, vm.Self)
			case *simulator.Datastore:
				simulator.RemoveReference(&holder.Vm, vm.Self)
			}
		})
	}
	simulator.Map.Remove(vm.Self)
}

// folderOf is the folder of a path below the VM folder, made where it is missing.
func (p *peer) folderOf(vm *simulator.VirtualMachine, path string) *simulator.Folder {
	folder := simulator.Map.Get(*vm.Parent).(*simulator.Folder)
	for _, name := range strings.FieldsFunc(path, func(c rune) bool { return c == '/' }) {
		if found := simulator.Map.FindByName(name, folder.ChildEntity); found != nil {
			folder = found.(*simulator.Folder)
			continue
		}
		made, err := object.NewFolder(p.client, folder.Self).CreateFolder(background, name)
		must(err)
		folder = simulator.Map.Get(made.Reference()).(*simulator.Folder)
	}
	return folder
}

// task makes a vSphere task of work on a VM.
func (p *peer) task(m *machine, name string, work func() (types.AnyType, *failure)) types.ManagedObjectReference {
	return p.taskOn(m.vm, &m.vm.RecentTask, name, func() (result types.AnyType, fault *failure) {
		m.locked(func() { result, fault = work() })
		return result, fault
	})
}

// taskOn makes a vSphere task of the work; it runs at once, or after the time that tasks take here.
func (p *peer) taskOn(on mo.Reference, recent *[]types.ManagedObjectReference, name string, work func() (types.AnyType, *failure)) types.ManagedObjectReference {
	var said *failure
	task := simulator.CreateTask(on, name, func(*simulator.Task) (result types.AnyType, fault types.BaseMethodFault) {
		result, said = work()
		if said != nil {
			return nil, said.fault
		}
		return result, nil
	})
	task.Info.DescriptionId = name
	run := func() {
		simulator.Map.WithLock(task, func() {
			task.Run()
			if said != nil {
				task.Info.Error.LocalizedMessage = said.words
			}
		})
	}
	simulator.Map.WithLock(on, func() { *recent = append(*recent, task.Self) })
	if p.taskTime == 0 {
		run()
		return task.Self
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	simulator.Map.WithLock(task, func() {
		task.Info.State, task.Info.Cancelable = types.TaskInfoStateRunning, p.cancelable
	})
	p.running[task.Self] = time.AfterFunc(p.taskTime, run)
	return task.Self
}

// cancel ends a task that has not done anything yet.
func (p *peer) cancel(ref types.ManagedObjectReference) *failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	if timer := p.running[ref]; !p.cancelable || timer == nil || !timer.Stop() {
		return notSupported()
	}
	task := simulator.Map.Get(ref).(*simulator.Task)
	simulator.Map.WithLock(task, func() {
		task.Info.State = types.TaskInfoStateError
		task.Info.Error = &types.LocalizedMethodFault{Fault: &types.RequestCanceled{}, LocalizedMessage: "canceled by the user"}
	})
	return nil
}

// answer is for what the simulator does not know, or not as the products do it; ours is false for the rest.
func (p *peer) answer(body types.AnyType) (response interface{}, fault *failure, ours bool) {
	if req, ok := body.(*types.FindAllByUuid); ok {
		return &types.FindAllByUuidResponse{Returnval: p.withUuid(req)}, nil, true
	}
	for _, answers := range []func(types.AnyType) (interface{}, *failure){p.answerPower, p.answerGuest, p.answerFiles} {
		if response, fault = answers(body); response != nil || fault != nil {
			return response, fault, true
		}
	}
	return nil, nil, false
}

// withUuid finds all VMs of one UUID: two that were copied by hand may share it.
func (p *peer) withUuid(req *types.FindAllByUuid) (found []types.ManagedObjectReference) {
	for _, m := range p.all() {
		has := m.vm.Config.Uuid
		if req.InstanceUuid != nil && *req.InstanceUuid {
			has = m.vm.Config.InstanceUuid
		}
		if req.VmSearch && strings.EqualFold(has, req.Uuid) {
			found = append(found, m.vm.Self)
		}
	}
	return found
}
