package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// control is how the tests steer it: POST /OPERATION with JSON, answered with JSON. None of it is SOAP, or counted.
type control struct {
	peer *peer
	gate *gate
}

type operation func(*control, order) (interface{}, error)

// order is what all operations are given.
type order struct {
	Name     string // of a VM, or another object
	Kind     string
	Values   map[string]json.RawMessage
	Value    json.RawMessage
	Seconds  float64
	Rule     rule
	Fault    string
	Words    string
	Fields   json.RawMessage
	Names    []string
	Instead  *instead
	Snapshot struct {
		Memory bool
		Title  string
	}
}

var operations = map[string]operation{
	"make": (*control).make, "switch": (*control).adjust, "set": (*control).set, "set-host": (*control).setOfHost, "key": (*control).key,
	"see": (*control).see, "power": (*control).power, "snapshot": (*control).snapshot, "remove": (*control).remove,
	"leftovers": (*control).leftovers, "move": (*control).move, "lose": (*control).lose,
	"reset": (*control).reset, "counts": (*control).counts, "clear": (*control).clear, "rule": (*control).rule,
	"manner": (*control).manner, "privileges": (*control).privileges, "expire": (*control).expire,
	"instead": (*control).instead,
}

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var given order
	do, known := operations[strings.Trim(r.URL.Path, "/")]
	if !known {
		http.Error(w, "no such operation", http.StatusNotFound)
		return
	}
	err := json.NewDecoder(r.Body).Decode(&given)
	var answer interface{}
	if err == nil {
		answer, err = do(c, given)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (c *control) make(o order) (interface{}, error) {
	want := wanted{switches: usual}
	if err := json.Unmarshal(o.Value, &want); err != nil {
		return nil, err
	}
	return c.peer.make(want).vm.Self.Value, nil
}

func (c *control) adjust(o order) (interface{}, error) {
	return c.on(o, func(m *machine) error { return json.Unmarshal(o.Value, &m.switches) })
}

// on does something with a VM while nobody reads it.
func (c *control) on(o order, do func(*machine) error) (interface{}, error) {
	m, err := c.peer.named(o.Name)
	if err == nil {
		m.locked(func() { err = do(m) })
	}
	return nil, err
}

// set changes properties of a VM, behind everybody's back.
func (c *control) set(o order) (interface{}, error) {
	return c.on(o, func(m *machine) error {
		for path, value := range o.Values {
			if err := setProperty(&m.vm.VirtualMachine, path, value); err != nil {
				return err
			}
			if strings.HasPrefix(path, "config.") && path != "config.changeVersion" {
				m.touched()
			}
		}
		return nil
	})
}

func (c *control) setOfHost(o order) (_ interface{}, err error) {
	for _, each := range simulator.Map.All("HostSystem") {
		host := each.(*simulator.HostSystem)
		if host.Name != o.Name {
			continue
		}
		simulator.Map.WithLock(host, func() {
			for path, value := range o.Values {
				if err == nil {
					err = setProperty(&host.HostSystem, path, value)
				}
			}
		})
		return nil, err
	}
	return nil, fmt.Errorf("there is no host %s", o.Name)
}

// key sets an extraConfig, or removes it.
func (c *control) key(o order) (interface{}, error) {
	return c.on(o, func(m *machine) error {
		var value *string
		if err := json.Unmarshal(o.Value, &value); err != nil {
			return err
		}
		m.touched()
		m.setKey(o.Kind, "")
		if value != nil {
			m.vm.Config.ExtraConfig = append(m.vm.Config.ExtraConfig, &types.OptionValue{Key: o.Kind, Value: *value})
		}
		return nil
	})
}

func (c *control) see(o order) (interface{}, error) {
	m, err := c.peer.named(o.Name)
	if err != nil {
		return nil, err
	}
	return c.peer.see(m)
}

func (c *control) power(o order) (interface{}, error) {
	return c.on(o, func(m *machine) error {
		switch o.Kind {
		case "on":
			m.boot(c.peer)
		case "off":
			m.off()
		case "suspended":
			m.runTools(false)
			m.state(suspended)
		case "reboot": // within the guest: its VM stays, and with it what it was started with
			m.guest.end()
		default:
			return fmt.Errorf("no such power state: %s", o.Kind)
		}
		return nil
	})
}

func (c *control) snapshot(o order) (interface{}, error) {
	m, err := c.peer.named(o.Name)
	if err != nil {
		return nil, err
	}
	vm := object.NewVirtualMachine(c.peer.client, m.vm.Self)
	task, err := vm.CreateSnapshot(background, o.Snapshot.Title, "", o.Snapshot.Memory, false)
	if err == nil {
		err = task.Wait(background)
	}
	if err == nil && !o.Snapshot.Memory { // a snapshot without memory is of a VM that is off
		m.locked(func() { newestOf(m.vm.Snapshot.RootSnapshotList).State = off })
	}
	return nil, err
}

func newestOf(tree []types.VirtualMachineSnapshotTree) *types.VirtualMachineSnapshotTree {
	last := &tree[len(tree)-1]
	if len(last.ChildSnapshotList) > 0 {
		return newestOf(last.ChildSnapshotList)
	}
	return last
}

func (c *control) remove(o order) (interface{}, error) {
	m, err := c.peer.named(o.Name)
	if err != nil {
		return nil, err
	}
	c.peer.mu.Lock()
	delete(c.peer.machines, m.vm.Self)
	c.peer.mu.Unlock()
	m.locked(m.end)
	c.peer.remove(m.vm)
	return nil, nil
}

// move puts a VM on another host, as vMotion does.
func (c *control) move(o order) (interface{}, error) {
	for _, each := range simulator.Map.All("HostSystem") {
		if each.Entity().Name == o.Kind {
			return c.on(o, func(m *machine) error {
				host := each.Reference()
				m.vm.Runtime.Host, m.vm.Summary.Runtime.Host = &host, &host
				return nil
			})
		}
	}
	return nil, fmt.Errorf("there is no host %s", o.Kind)
}

// lose is a host that vCenter hears nothing of any more: nor, then, of its VMs.
func (c *control) lose(o order) (interface{}, error) {
	host, found := simulator.Map.FindByName(o.Name, allHosts()).(*simulator.HostSystem)
	if !found {
		return nil, fmt.Errorf("there is no host %s", o.Name)
	}
	simulator.Map.WithLock(host, func() {
		host.Runtime.ConnectionState = types.HostSystemConnectionStateNotResponding
	})
	for _, each := range c.peer.all() {
		m := each
		m.locked(func() {
			if *m.vm.Runtime.Host == host.Self {
				m.vm.Runtime.ConnectionState = types.VirtualMachineConnectionStateDisconnected
			}
		})
	}
	return nil, nil
}

func allHosts() (all []types.ManagedObjectReference) {
	for _, each := range simulator.Map.All("HostSystem") {
		all = append(all, each.Reference())
	}
	return all
}

func (c *control) leftovers(o order) (interface{}, error) {
	m, err := c.peer.named(o.Name)
	if err != nil {
		return nil, err
	}
	left := []string{}
	top := m.temporary()
	err = filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if path != top {
			left = append(left, path)
		}
		return err
	})
	return left, err
}

func (c *control) reset(order) (interface{}, error) {
	c.gate.reset()
	c.gate.allow(nil)
	c.peer.reset()
	return nil, nil
}

func (c *control) counts(order) (interface{}, error) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	counts := map[string]int{}
	for method, number := range c.gate.counts {
		counts[method] = number
	}
	return counts, nil
}

func (c *control) clear(order) (interface{}, error) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.counts = map[string]int{}
	return nil, nil
}

func (c *control) rule(o order) (interface{}, error) {
	planned := o.Rule
	if planned.What == "fault" {
		fault, err := plannedFailure(o.Fault, o.Words, o.Fields)
		if err != nil {
			return nil, err
		}
		planned.failure = fault
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.rules = append(c.gate.rules, &planned)
	return nil, nil
}

// manner is how the whole product behaves.
func (c *control) manner(o order) (interface{}, error) {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	switch o.Kind {
	case "tasks":
		c.peer.taskTime = time.Duration(o.Seconds * float64(time.Second))
		c.peer.cancelable = o.Name == "cancelable"
	case "drs-manual":
		c.peer.drsManual = true
	case "transfer":
		c.peer.where = o.Name
	default:
		return nil, fmt.Errorf("no such manner: %s", o.Kind)
	}
	return nil, nil
}

func (c *control) privileges(o order) (interface{}, error) {
	c.gate.allow(o.Names)
	return nil, nil
}

func (c *control) expire(order) (interface{}, error) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.sessions = map[string]bool{}
	return nil, nil
}

func (c *control) instead(o order) (interface{}, error) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.instead = o.Instead
	return nil, nil
}
