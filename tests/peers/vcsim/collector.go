package main

import (
	"fmt"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector gives long answers in pages, and refuses a property that a type does not have. Each session has its own.
type collector struct {
	simulator.PropertyCollector

	rest []types.ObjectContent
	page int32
	uses int
}

// pages keeps two requests of one session from each other.
var pages sync.Mutex

// RetrievePropertiesEx answers with up to maxObjects, and with a token for the rest.
func (c *collector) RetrievePropertiesEx(ctx *simulator.Context, req *types.RetrievePropertiesEx) soap.HasFault {
	answer := c.PropertyCollector.RetrievePropertiesEx(ctx, req)
	body, ok := answer.(*methods.RetrievePropertiesExBody)
	if !ok || body.Res == nil || body.Res.Returnval == nil {
		return answer
	}
	for _, each := range body.Res.Returnval.Objects {
		for _, missing := range each.MissingSet {
			if fault, unknown := missing.Fault.Fault.(*types.InvalidProperty); unknown {
				words := fmt.Sprintf("A specified parameter was not correct: %s", fault.Name)
				return &methods.RetrievePropertiesExBody{Fault_: (&failure{fault, words}).asSoap()}
			}
		}
	}
	pages.Lock()
	defer pages.Unlock()
	c.rest, c.page = body.Res.Returnval.Objects, req.Options.MaxObjects
	body.Res.Returnval = c.next()
	return body
}

// ContinueRetrievePropertiesEx answers with the next page.
func (c *collector) ContinueRetrievePropertiesEx(req *types.ContinueRetrievePropertiesEx) soap.HasFault {
	pages.Lock()
	defer pages.Unlock()
	if len(c.rest) == 0 || req.Token != c.token() {
		fault := &failure{&types.InvalidArgument{InvalidProperty: "token"}, "A specified parameter was not correct: token"}
		return &methods.ContinueRetrievePropertiesExBody{Fault_: fault.asSoap()}
	}
	return &methods.ContinueRetrievePropertiesExBody{
		Res: &types.ContinueRetrievePropertiesExResponse{Returnval: *c.next()},
	}
}

// CancelRetrievePropertiesEx forgets the rest.
func (c *collector) CancelRetrievePropertiesEx(*types.CancelRetrievePropertiesEx) soap.HasFault {
	pages.Lock()
	defer pages.Unlock()
	c.rest = nil
	return &methods.CancelRetrievePropertiesExBody{Res: &types.CancelRetrievePropertiesExResponse{}}
}

func (c *collector) token() string { return fmt.Sprint(c.uses) }

func (c *collector) next() *types.RetrieveResult {
	c.uses++
	result := &types.RetrieveResult{Objects: c.rest}
	c.rest = nil
	if size := int(c.page); size > 0 && len(result.Objects) > size {
		c.rest, result.Objects = result.Objects[size:], result.Objects[:size]
		result.Token = c.token()
	}
	return result
}
