package main

import (
	"net/http"
	"reflect"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// failure is a fault with the words that the product has for it.
type failure struct {
	fault types.BaseMethodFault
	words string
}

func (f *failure) localized() types.LocalizedMethodFault {
	return types.LocalizedMethodFault{Fault: f.fault, LocalizedMessage: f.words}
}

type envelope struct {
	XMLName xml.Name    `xml:"soapenv:Envelope"`
	Env     string      `xml:"xmlns:soapenv,attr"`
	XSD     string      `xml:"xmlns:xsd,attr"`
	XSI     string      `xml:"xmlns:xsi,attr"`
	Body    interface{} `xml:"soapenv:Body"`
}

// element is written under another name than that of its Go type.
type element struct {
	name  string
	typed bool
	value interface{}
}

func (x element) MarshalXML(encoder *xml.Encoder, outer xml.StartElement) error {
	start := xml.StartElement{Name: xml.Name{Local: x.name}}
	start.Attr = []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: "urn:vim25"}}
	if x.typed {
		kind := xml.Attr{Name: xml.Name{Local: "xsi:type"}, Value: nameOf(x.value)}
		start.Attr = append(start.Attr, kind)
	}
	if err := encoder.EncodeToken(outer); err != nil {
		return err
	}
	if err := encoder.EncodeElement(x.value, start); err != nil {
		return err
	}
	return encoder.EncodeToken(outer.End())
}

type faultBody struct {
	Fault struct {
		Code   string  `xml:"faultcode"`
		String string  `xml:"faultstring"`
		Detail element `xml:"detail"`
	} `xml:"soapenv:Fault"`
}

func writeResult(w http.ResponseWriter, response interface{}) {
	write(w, http.StatusOK, element{nameOf(response), false, response})
}

func writeFault(w http.ResponseWriter, f *failure) {
	var body faultBody
	body.Fault.Code, body.Fault.String = "ServerFaultCode", f.words
	body.Fault.Detail = element{nameOf(f.fault) + "Fault", true, f.fault}
	write(w, http.StatusInternalServerError, body)
}

func write(w http.ResponseWriter, status int, body interface{}) {
	text, err := xml.Marshal(&envelope{
		Env:  "http://schemas.xmlsoap.org/soap/envelope/",
		XSD:  "http://www.w3.org/2001/XMLSchema",
		XSI:  "http://www.w3.org/2001/XMLSchema-instance",
		Body: body,
	})
	must(err)
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(xml.Header), text...))
}

// asSoap is the same for what the simulator calls.
func (f *failure) asSoap() *soap.Fault {
	fault := &soap.Fault{Code: "ServerFaultCode", String: f.words}
	fault.Detail.Fault = f.fault
	return fault
}

func nameOf(value interface{}) string { return reflect.TypeOf(value).Elem().Name() }
