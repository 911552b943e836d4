// A vCenter or ESXi host to test against: govmomi's simulator, made to behave as the products do where it does not.
//
// What is asked of it over SOAP comes in through the gate, which counts, delays, breaks and refuses; what the
// simulator knows nothing of (nesting, guests, DRS) is answered here, the rest by the simulator. Tests steer it over a
// side channel, see control.go. It ends when its standard input does, so that none outlives its tests.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	address  = "127.0.0.2:0" // clients tend to be lax with 127.0.0.1
	loopback = "127.0.0.1:0"
	hosts    = "127.0.0.3:0" // where an ESXi host would serve its guests' files, with a certificate of its own
)

// told is the one line that says where everything is.
type told struct {
	Address, Loopback, Control       string
	CaFile, OtherCaFile, HostsCaFile string
	Thumbprint, ThumbprintSha1       string
	HostThumbprintSha1               string
}

func main() {
	user := flag.String("user", "", "who logs in")
	guestUser := flag.String("guest-user", "", "who logs in to guests")
	folder := flag.String("folder", "", "where guests and certificates are kept; with guest/ in it")
	isHost := flag.Bool("esx", false, "be an ESXi host, not a vCenter")
	vms := flag.Int("vms", 0, "further VMs")
	flag.Parse()
	log.SetFlags(log.Lmicroseconds)

	esx.HardwareVersion = "vmx-19"
	model := simulator.VPX()
	if *isHost {
		model = simulator.ESX()
	}
	must(model.Create())
	defer model.Remove()
	model.Service.Listen = &url.URL{User: url.UserPassword(*user, os.Getenv("VCSIM_PASSWORD"))}
	model.Service.RegisterSDK(simulator.Map)

	certs := makeCertificates(*folder)
	peer := newPeer(model.Service, *folder, credentials{*guestUser, os.Getenv("VCSIM_GUEST_PASSWORD")})
	peer.prepare(certs.hostThumbprint)
	for i := 0; i < *vms; i++ {
		peer.make(many(i))
	}
	gate := newGate(peer, model.Service)
	front := http.NewServeMux()
	front.Handle("/sdk", gate)
	front.HandleFunc("/sdk/vimServiceVersions.xml", gate.counted(model.Service.ServiceVersions))
	front.HandleFunc(transferPath, gate.counted(peer.transfer))
	where := told{
		Address:  serve(address, front, &certs.server),
		Loopback: serve(loopback, front, &certs.server),
		Control:  serve(loopback, &control{peer, gate}, nil),
		CaFile:   certs.caFile, OtherCaFile: certs.otherCaFile, HostsCaFile: certs.hostsCaFile,
		Thumbprint: certs.thumbprint, ThumbprintSha1: certs.thumbprintSha1, HostThumbprintSha1: certs.hostThumbprint,
	}
	peer.addresses = map[string]string{"host": where.Address, "other": serve(hosts, front, &certs.host)}
	_, port, _ := net.SplitHostPort(where.Address)
	peer.addresses["*"] = "*:" + port
	must(json.NewEncoder(os.Stdout).Encode(where))
	_, _ = io.Copy(io.Discard, os.Stdin)
	peer.close()
}

func serve(at string, handler http.Handler, certificate *tls.Certificate) string {
	listener, err := net.Listen("tcp", at)
	must(err)
	where := listener.Addr().String()
	if certificate != nil {
		settings := &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12}
		listener = tls.NewListener(listener, settings)
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { log.Print(server.Serve(listener)) }()
	return where
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func yes() *bool { return types.NewBool(true) }
