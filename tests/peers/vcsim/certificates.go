package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // VMware shows thumbprints by it
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// certificates are made anew by each process: nobody can have trusted them before.
type certificates struct {
	server, host                     tls.Certificate
	caFile, otherCaFile, hostsCaFile string
	thumbprint, thumbprintSha1       string
	hostThumbprint                   string
}

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	file        string
}

func makeCertificates(folder string) certificates {
	ours, other, vmca := newAuthority(folder, "ca"), newAuthority(folder, "other-ca"), newAuthority(folder, "hosts-ca")
	server := ours.issue("vcenter.example.com", "127.0.0.2", "127.0.0.1")
	host := vmca.issue("esxi.example.com", "127.0.0.3")
	sum := sha256.Sum256(server.Certificate[0])
	return certificates{
		server: server, host: host,
		caFile: ours.file, otherCaFile: other.file, hostsCaFile: vmca.file,
		thumbprint:     colons(sum[:]),
		thumbprintSha1: shown(server),
		hostThumbprint: shown(host),
	}
}

func shown(certificate tls.Certificate) string {
	sum := sha1.Sum(certificate.Certificate[0])
	return colons(sum[:])
}

func colons(digest []byte) string {
	return strings.ReplaceAll(fmt.Sprintf("% X", digest), " ", ":")
}

func newAuthority(folder, name string) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := blank(name)
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(err)
	certificate, err := x509.ParseCertificate(der)
	must(err)
	file := filepath.Join(folder, name+".pem")
	must(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	return authority{certificate, key, file}
}

func (a authority) issue(name string, addresses ...string) tls.Certificate {
	key, err := rsa.GenerateKey(rand.Reader, 2048) // as VMware's own authority makes them
	must(err)
	template := blank(name)
	template.DNSNames = []string{name}
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, each := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(each))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func blank(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(err)
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(240 * time.Hour),
		BasicConstraintsValid: true,
	}
}
