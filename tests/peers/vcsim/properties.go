package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// setProperty sets a property by its path, as in config.flags.vbsEnabled; a path that ends with + is added to.
func setProperty(object interface{}, path string, value json.RawMessage) error {
	place := reflect.ValueOf(object).Elem()
	for _, name := range strings.Split(strings.TrimSuffix(path, "+"), ".") {
		for place.Kind() == reflect.Ptr || place.Kind() == reflect.Interface {
			if place.Kind() == reflect.Ptr && place.IsNil() {
				place.Set(reflect.New(place.Type().Elem()))
			}
			place = place.Elem()
		}
		if place = place.FieldByName(strings.ToUpper(name[:1]) + name[1:]); !place.IsValid() {
			return fmt.Errorf("%s: there is no %s", path, name)
		}
	}
	if !strings.HasSuffix(path, "+") {
		return decode(place, value)
	}
	added := reflect.New(place.Type().Elem()).Elem()
	if err := decode(added, value); err != nil {
		return err
	}
	whole := reflect.MakeSlice(place.Type(), 0, place.Len()+1) // the VMs that were copied share what it held
	place.Set(reflect.Append(reflect.AppendSlice(whole, place), added))
	return nil
}

// decode reads JSON; what may be of several types names its own as _type.
func decode(place reflect.Value, value json.RawMessage) error {
	if string(value) == "null" {
		place.Set(reflect.Zero(place.Type()))
		return nil
	}
	if place.Kind() != reflect.Interface {
		fresh := reflect.New(place.Type())
		err := json.Unmarshal(value, fresh.Interface())
		place.Set(fresh.Elem())
		return err
	}
	var typed struct {
		Type string `json:"_type"`
	}
	if err := json.Unmarshal(value, &typed); err != nil {
		return err
	}
	made, err := newOf(typed.Type)
	if err != nil {
		return err
	}
	place.Set(made)
	return json.Unmarshal(value, made.Interface())
}

// newOf makes a pointer to one of vSphere's types.
func newOf(name string) (reflect.Value, error) {
	kind, ok := types.TypeFunc()(name)
	if !ok {
		return reflect.Value{}, fmt.Errorf("there is no type %q", name)
	}
	return reflect.New(kind), nil
}

// plannedFailure is one of vSphere's faults by its name, with these fields.
func plannedFailure(name, words string, fields json.RawMessage) (*failure, error) {
	made, err := newOf(name)
	if err != nil {
		return nil, err
	}
	if len(fields) > 0 {
		if err := json.Unmarshal(fields, made.Interface()); err != nil {
			return nil, err
		}
	}
	fault, ok := made.Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%s is no fault", name)
	}
	return &failure{fault, words}, nil
}

// see reads a VM as a client would, by govmomi's property package: what the tests compare with.
func (p *peer) see(m *machine) (interface{}, error) {
	var seen mo.VirtualMachine
	wanted := []string{"name", "config", "runtime", "guest", "snapshot", "capability"}
	err := property.DefaultCollector(p.client).RetrieveOne(background, m.vm.Self, wanted, &seen)
	if err != nil {
		return nil, err
	}
	return map[string]interface{}{
		"moref": m.vm.Self.Value, "config": seen.Config, "runtime": seen.Runtime, "guest": seen.Guest,
		"snapshot": seen.Snapshot, "capability": seen.Capability, "live": m.live, "boots": m.boots,
	}, nil
}
