package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/types"
)

const transferPath = "/guestFile"

// transfer is a file of a guest that may be fetched or put there, once.
type transfer struct {
	path string
	size int64
	up   bool
	mode os.FileMode
}

func (p *peer) answerFiles(body types.AnyType) (interface{}, *failure) {
	switch req := body.(type) {
	case *types.CreateTemporaryDirectoryInGuest:
		res := &types.CreateTemporaryDirectoryInGuestResponse{}
		return res, p.inGuest(req.Vm, req.Auth, func(m *machine) *failure {
			path, err := os.MkdirTemp(m.below(req.DirectoryPath), req.Prefix+"*"+req.Suffix)
			res.Returnval = path
			return fileFault(path, err)
		})
	case *types.CreateTemporaryFileInGuest:
		res := &types.CreateTemporaryFileInGuestResponse{}
		return res, p.inGuest(req.Vm, req.Auth, func(m *machine) *failure {
			file, err := os.CreateTemp(m.below(req.DirectoryPath), req.Prefix+"*"+req.Suffix)
			if err == nil {
				res.Returnval = file.Name()
				_ = file.Close()
			}
			return fileFault(req.DirectoryPath, err)
		})
	case *types.DeleteDirectoryInGuest:
		return &types.DeleteDirectoryInGuestResponse{}, p.inGuest(req.Vm, req.Auth, func(m *machine) *failure {
			if req.Recursive && m.owns(req.DirectoryPath) {
				return fileFault(req.DirectoryPath, os.RemoveAll(req.DirectoryPath))
			}
			return fileFault(req.DirectoryPath, m.remove(req.DirectoryPath))
		})
	case *types.DeleteFileInGuest:
		return &types.DeleteFileInGuestResponse{}, p.inGuest(req.Vm, req.Auth, func(m *machine) *failure {
			return fileFault(req.FilePath, m.remove(req.FilePath))
		})
	case *types.InitiateFileTransferToGuest:
		res := &types.InitiateFileTransferToGuestResponse{}
		return res, p.inGuest(req.Vm, req.Auth, func(m *machine) *failure {
			_, err := os.Stat(req.GuestFilePath)
			if err == nil && !req.Overwrite {
				return &failure{&types.FileAlreadyExists{FileFault: types.FileFault{File: req.GuestFilePath}}, "exists"}
			}
			mode := os.FileMode(0o644)
			if given, ok := req.FileAttributes.(*types.GuestPosixFileAttributes); ok && given.Permissions != 0 {
				mode = os.FileMode(given.Permissions)
			}
			res.Returnval = p.urlOf(transfer{req.GuestFilePath, req.FileSize, true, mode})
			return nil
		})
	case *types.InitiateFileTransferFromGuest:
		res := &types.InitiateFileTransferFromGuestResponse{}
		return res, p.inGuest(req.Vm, req.Auth, func(m *machine) *failure {
			found, err := os.Stat(req.GuestFilePath)
			if err != nil {
				return noFile(req.GuestFilePath)
			}
			res.Returnval = types.FileTransferInformation{Attributes: &types.GuestPosixFileAttributes{}, Size: found.Size()}
			res.Returnval.Url = p.urlOf(transfer{path: req.GuestFilePath})
			return nil
		})
	}
	return nil, nil
}

// owns: a mistaken client is kept from removing what is not the guest's.
func (m *machine) owns(path string) bool {
	return strings.HasPrefix(filepath.Clean(path), m.folder+"/")
}

func (m *machine) remove(path string) error {
	if !m.owns(path) {
		return fmt.Errorf("%s is not the guest's own", path)
	}
	return os.Remove(path)
}

func (m *machine) below(asked string) string {
	if asked == "" {
		return m.temporary()
	}
	return asked
}

func fileFault(path string, err error) *failure {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return noFile(path)
	}
	return &failure{&types.FileFault{File: path}, err.Error()}
}

func (p *peer) urlOf(wanted transfer) string {
	token := uuid.New().String()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files[token] = wanted
	return fmt.Sprintf("https://%s%s?id=%d&token=%s", p.addresses[p.where], transferPath, len(p.files), token)
}

// transfer is what an ESXi host serves at the addresses of guests' files.
func (p *peer) transfer(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	p.mu.Lock()
	wanted, known := p.files[token]
	delete(p.files, token)
	p.mu.Unlock()
	if !known || wanted.up != (r.Method == http.MethodPut) {
		http.Error(w, "no such transfer", http.StatusNotFound)
		return
	}
	if !wanted.up {
		http.ServeFile(w, r, wanted.path)
		return
	}
	file, err := os.OpenFile(wanted.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, wanted.mode)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer file.Close()
	if size, err := io.Copy(file, r.Body); err != nil || size != wanted.size {
		http.Error(w, "not the size that was announced", http.StatusInternalServerError)
	}
}
