package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// rule says what happens to the next requests of a method: it is delayed, cut off, or ends with a fault.
type rule struct {
	Method  string
	What    string // delay, before, after, half, garbled, foreign, packed, fault
	Times   int
	Skip    int // so many requests before are left alone
	Seconds float64
	failure *failure
}

// gate is what all requests of clients come through.
type gate struct {
	peer      *peer
	simulator http.Handler

	mu         sync.Mutex
	counts     map[string]int
	rules      []*rule
	sessions   map[string]bool
	privileges map[string]bool // nil: all
	instead    *instead        // where this is some other server
}

// instead is what is answered to everything.
type instead struct {
	Status     int
	Body, Type string
}

func newGate(p *peer, service *simulator.Service) *gate {
	g := &gate{peer: p, simulator: http.HandlerFunc(service.ServeSDK), sessions: map[string]bool{}}
	g.reset()
	p.failureOf = func(method string) *failure {
		if r := g.take(method, "fault"); r != nil {
			return r.failure
		}
		return nil
	}
	return g
}

func (g *gate) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts, g.rules, g.privileges, g.instead = map[string]int{}, nil, nil, nil
}

// take uses up one rule of that kind for the method, if there is one.
func (g *gate) take(method, what string) *rule {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.rules {
		if r.Method == method && r.What == what && r.Skip > 0 {
			r.Skip--
			continue
		}
		if r.Method == method && r.What == what && r.Times > 0 {
			r.Times--
			return r
		}
	}
	return nil
}

func (g *gate) count(what string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[what]++
}

func (g *gate) counted(handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		what := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/")
		g.count(what)
		if g.take(what, "before") != nil {
			cut(w)
			return
		}
		handler(w, r)
	}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	method, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	name := r.Method + " sdk"
	if err == nil {
		name = method.Name
	}
	g.count(name)
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		g.count("that take gzip")
	}
	if other := g.instead; other != nil {
		w.Header().Set("Content-Type", other.Type)
		w.WriteHeader(other.Status)
		_, _ = io.WriteString(w, other.Body)
		return
	}
	if delay := g.take(name, "delay"); delay != nil {
		time.Sleep(time.Duration(delay.Seconds * float64(time.Second)))
	}
	if g.take(name, "before") != nil {
		cut(w)
		return
	}
	answer := httptest.NewRecorder()
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		g.simulator.ServeHTTP(answer, r)
	} else {
		g.answer(answer, r, method)
	}
	if g.take(name, "after") != nil {
		cut(w)
		return
	}
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	if g.take(name, "half") != nil {
		whole := answer.Body.Len()
		w.Header().Set("Content-Length", fmt.Sprint(whole))
		answer.Body.Truncate(whole / 2)
	}
	for what, page := range map[string]string{"garbled": "<html><br></html>", "foreign": "<html><br/></html>"} {
		if g.take(name, what) != nil {
			answer.Body = bytes.NewBufferString(page)
		}
	}
	if g.take(name, "packed") != nil {
		w.Header().Set("Content-Encoding", "gzip")
		answer.Body = packed(answer.Body.Bytes())
	}
	w.WriteHeader(answer.Code)
	_, _ = answer.Body.WriteTo(w)
}

func packed(whole []byte) *bytes.Buffer {
	var small bytes.Buffer
	writer := gzip.NewWriter(&small)
	_, err := writer.Write(whole)
	must(err)
	must(writer.Close())
	return &small
}

// answer asks the peer, and the simulator for what the peer does not know.
func (g *gate) answer(w *httptest.ResponseRecorder, r *http.Request, method *simulator.Method) {
	cookie, _ := r.Cookie(soap.SessionCookieName)
	if cookie != nil && !g.knows(cookie) {
		r.Header.Del("Cookie") // for the simulator, to whom the session goes on
	}
	if fault := g.refuses(method, cookie); fault != nil {
		writeFault(w, fault)
		return
	}
	if !isTask(method.Name) {
		if fault := g.peer.failureOf(method.Name); fault != nil {
			writeFault(w, fault)
			return
		}
	}
	result, fault, ours := g.peer.answer(method.Body)
	switch {
	case ours && fault != nil:
		writeFault(w, fault)
	case ours:
		writeResult(w, result)
	default:
		g.simulator.ServeHTTP(w, r)
		g.remember(w, method.Name, cookie)
	}
}

func (g *gate) knows(cookie *http.Cookie) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[cookie.Value]
}

func (g *gate) remember(w *httptest.ResponseRecorder, method string, cookie *http.Cookie) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if method == "Logout" && cookie != nil {
		delete(g.sessions, cookie.Value)
	}
	for _, given := range w.Result().Cookies() {
		g.sessions[given.Value] = true
	}
}

// open is what may be asked without a session.
var open = map[string]bool{"RetrieveServiceContent": true, "Login": true, "LoginByToken": true}

// needed is the privilege without which a method is refused.
var needed = map[string]string{
	"UpgradeVM_Task":                  "VirtualMachine.Config.UpgradeVirtualHardware",
	"PowerOnVM_Task":                  "VirtualMachine.Interact.PowerOn",
	"PowerOnMultiVM_Task":             "VirtualMachine.Interact.PowerOn",
	"PowerOffVM_Task":                 "VirtualMachine.Interact.PowerOff",
	"ShutdownGuest":                   "VirtualMachine.Interact.PowerOff",
	"ListProcessesInGuest":            "VirtualMachine.GuestOperations.Query",
	"StartProgramInGuest":             "VirtualMachine.GuestOperations.Execute",
	"TerminateProcessInGuest":         "VirtualMachine.GuestOperations.Execute",
	"InitiateFileTransferFromGuest":   "VirtualMachine.GuestOperations.Query",
	"InitiateFileTransferToGuest":     "VirtualMachine.GuestOperations.Modify",
	"CreateTemporaryDirectoryInGuest": "VirtualMachine.GuestOperations.Modify",
	"DeleteDirectoryInGuest":          "VirtualMachine.GuestOperations.Modify",
	"DeleteFileInGuest":               "VirtualMachine.GuestOperations.Modify",
	"config.nestedHVEnabled":          "VirtualMachine.Config.Settings",
	"config.extraConfig":              "VirtualMachine.Config.AdvancedConfig",
}

func (g *gate) refuses(method *simulator.Method, cookie *http.Cookie) *failure {
	g.mu.Lock()
	defer g.mu.Unlock()
	if open[method.Name] {
		return nil
	}
	if cookie == nil || !g.sessions[cookie.Value] {
		denied := types.NoPermission{Object: method.This, PrivilegeId: "System.View"}
		return &failure{&types.NotAuthenticated{NoPermission: denied}, "The session is not authenticated."}
	}
	if g.privileges == nil {
		return nil
	}
	for _, each := range writes(method) {
		if privilege := needed[each]; privilege != "" && !g.privileges[privilege] {
			denied := &types.NoPermission{Object: method.This, PrivilegeId: privilege}
			return &failure{denied, "Permission to perform this operation was denied."}
		}
	}
	return nil
}

// writes are the method's name, or what of a VM's configuration it changes.
func writes(method *simulator.Method) []string {
	req, ok := method.Body.(*types.ReconfigVM_Task)
	if !ok {
		return []string{method.Name}
	}
	var fields []string
	if req.Spec.NestedHVEnabled != nil {
		fields = append(fields, "config.nestedHVEnabled")
	}
	if len(req.Spec.ExtraConfig) > 0 {
		fields = append(fields, "config.extraConfig")
	}
	return fields
}

// allow makes a role of these privileges, and shows it as the user's on everything; none: of all there are.
func (g *gate) allow(privileges []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	roles := simulator.Map.Get(*content().AuthorizationManager).(*simulator.AuthorizationManager)
	role := administrator
	g.privileges = nil
	if privileges != nil {
		role = granted
		g.privileges = map[string]bool{}
		for _, each := range privileges {
			g.privileges[each] = true
		}
	}
	simulator.Map.WithLock(roles, func() {
		kept := roles.RoleList[:0]
		for _, each := range roles.RoleList {
			if each.RoleId != granted {
				kept = append(kept, each)
			}
		}
		given := append([]string{"System.Anonymous", "System.Read", "System.View"}, privileges...)
		roles.RoleList = append(kept, types.AuthorizationRole{RoleId: granted, Name: "nestvirt", Privilege: given})
	})
	g.peer.role = role
	for _, each := range simulator.Map.All("") {
		entity := each
		simulator.Map.WithLock(entity, func() { entity.Entity().EffectiveRole = []int32{role} })
	}
}

const (
	administrator = int32(-1)
	granted       = int32(4711)
)

func cut(w http.ResponseWriter) {
	if connection, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = connection.Close()
	}
}
