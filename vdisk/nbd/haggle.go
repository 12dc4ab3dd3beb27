package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"
)

const (
	// maxSkip is the longest data of an option that is skipped, in bytes.
	maxSkip = 1 << 20
	// maxItems is how many items of information, or queries, an option may have.
	maxItems = 1000
	// preferredBlock is what clients are told unless the export knows better.
	preferredBlock = 4096
)

// errGoodbye ends haggling with a client that wants no more.
var errGoodbye = errors.New("client went")

// haggle shakes hands and answers options until the client has chosen an
// export, which then is c.export, and was entered.
func (c *conn) haggle() error {
	var b []byte
	b = append(b, initMagic...)
	b = append(b, optMagic...)
	b = binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	if err := c.send(b); err != nil {
		return err
	}
	c.deadline(haggleTime)
	var answer [4]byte
	if _, err := io.ReadFull(c.in, answer[:]); err != nil {
		return fmt.Errorf("read client flags: %w", err)
	}
	flags := binary.BigEndian.Uint32(answer[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 || flags&flagFixedNewstyle == 0 {
		return fmt.Errorf("bad client flags %#x", flags)
	}
	_, needTLS := c.nc.(Upgrader)
	hasTLS := false
	for {
		c.deadline(haggleTime)
		option, data, tooBig, err := c.readOption()
		if err != nil {
			return err
		}
		switch {
		case option == optAbort:
			return errors.Join(c.optReply(option, repAck, nil), errGoodbye)
		case option == optExportName && (needTLS || tooBig):
			return errors.New("the export name is not acceptable, and the client cannot be told")
		case tooBig:
			err = c.refuse(option, repErrTooBig, "option too long")
		case option == optStartTLS && len(data) > 0:
			err = c.refuse(option, repErrInvalid, "data after NBD_OPT_STARTTLS")
		case option == optStartTLS && needTLS:
			err = c.startTLS()
			needTLS, hasTLS = false, true
		case option == optStartTLS && hasTLS:
			err = c.refuse(option, repErrInvalid, "TLS has begun already")
		case option == optStartTLS:
			err = c.refuse(option, repErrPolicy, "there is no TLS at this address")
		case needTLS:
			err = c.refuse(option, repErrTLSReqd, "TLS comes first")
		case option == optExportName:
			return c.exportName(string(data), flags&flagNoZeroes == 0)
		case option == optGo, option == optInfo:
			var done bool
			if done, err = c.info(option, data); done {
				return err
			}
		default:
			err = c.option(option, data)
		}
		if err != nil {
			return err
		}
	}
}

// readOption reads an option. If its data are too long it skips them.
func (c *conn) readOption() (option uint32, data []byte, tooBig bool, err error) {
	var head [optHeadSize]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, false, fmt.Errorf("read option: %w", err)
	}
	if string(head[:8]) != optMagic {
		return 0, nil, false, fmt.Errorf("bad magic %x of an option", head[:8])
	}
	option = binary.BigEndian.Uint32(head[8:])
	length := binary.BigEndian.Uint32(head[12:])
	switch {
	case length > maxSkip:
		return 0, nil, false, fmt.Errorf("option %d of %d bytes", option, length)
	case length > maxOption:
		_, err = c.in.Discard(int(length))
		return option, nil, true, err
	}
	data = make([]byte, length)
	_, err = io.ReadFull(c.in, data)
	return option, data, false, err
}

func (c *conn) send(b []byte) error {
	c.nc.SetWriteDeadline(time.Now().Add(stallTime))
	_, err := c.nc.Write(b)
	return err
}

func (c *conn) optReply(option, typ uint32, data []byte) error {
	return c.send(appendOptReply(nil, option, typ, data))
}

// refuse answers an option with an error.
func (c *conn) refuse(option, typ uint32, why string) error {
	return c.optReply(option, typ, []byte(text(why)))
}

// option answers an option that does not end haggling.
func (c *conn) option(option uint32, data []byte) error {
	switch option {
	case optList:
		return c.list(data)
	case optStructuredReply:
		if len(data) > 0 {
			return c.refuse(option, repErrInvalid, "data after NBD_OPT_STRUCTURED_REPLY")
		}
		c.structured = true
		return c.optReply(option, repAck, nil)
	case optListMetaContext, optSetMetaContext:
		return c.metaContext(option, data)
	}
	return c.refuse(option, repErrUnsup, "unknown option")
}

// startTLS begins TLS. What was agreed upon before is forgotten.
func (c *conn) startTLS() error {
	if c.in.Buffered() > 0 {
		// Whoever sat in between would have it taken for what the client said
		// under TLS.
		return errors.New("something came after NBD_OPT_STARTTLS that is not TLS")
	}
	if err := c.optReply(optStartTLS, repAck, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, haggleTime)
	defer cancel()
	nc, err := c.nc.(Upgrader).Upgrade(ctx)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	c.mu.Lock()
	c.nc = nc
	if c.stopped {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
	c.mu.Unlock()
	c.in = bufio.NewReaderSize(nc, readSize)
	c.structured, c.context, c.contextOf = false, false, ""
	return nil
}

// list answers NBD_OPT_LIST.
func (c *conn) list(data []byte) error {
	if len(data) > 0 {
		return c.refuse(optList, repErrInvalid, "data after NBD_OPT_LIST")
	}
	all, err := c.srv.exports.List(c.ctx)
	if err != nil {
		c.log.Error("list exports", "err", err)
		return c.refuse(optList, repErrPolicy, err.Error())
	}
	var b []byte
	for _, x := range all {
		if checkString(x.Name) != nil {
			continue // no client could ask for it
		}
		d := binary.BigEndian.AppendUint32(nil, uint32(len(x.Name)))
		d = append(d, x.Name...)
		d = append(d, text(x.Description)...)
		if b = appendOptReply(b, optList, repServer, d); len(b) > maxOption {
			if err := c.send(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	return c.send(appendOptReply(b, optList, repAck, nil))
}

// metaContext answers NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
func (c *conn) metaContext(option uint32, data []byte) error {
	if option == optSetMetaContext {
		c.context = false
	}
	if !c.structured {
		return c.refuse(option, repErrInvalid, "structured replies come first")
	}
	in := cutter{b: data}
	name := in.string()
	n := in.uint32()
	if n > maxItems {
		return c.refuse(option, repErrTooBig, "too many queries")
	}
	match := n == 0 && option == optListMetaContext
	for range n {
		q := in.string()
		match = match || q == allocation || q == "base:" && option == optListMetaContext
	}
	if in.bad || len(in.b) > 0 || checkString(name) != nil {
		return c.refuse(option, repErrInvalid, "malformed metadata context request")
	}
	x, err := c.srv.exports.Open(c.ctx, name)
	if err != nil {
		return c.refuseExport(option, name, err)
	}
	x.release()
	var b []byte
	if match {
		id := uint32(0)
		if option == optSetMetaContext {
			id = allocationID
			c.context, c.contextOf = true, name
		}
		b = appendOptReply(b, option, repMetaContext, append(binary.BigEndian.AppendUint32(nil, id), allocation...))
	}
	return c.send(appendOptReply(b, option, repAck, nil))
}

// refuseExport says why an export does not open.
func (c *conn) refuseExport(option uint32, name string, err error) error {
	typ := uint32(repErrUnknown)
	switch {
	case errors.Is(err, fs.ErrPermission):
		typ = repErrPolicy
	case !errors.Is(err, fs.ErrNotExist):
		c.log.Error("open export", "export", name, "err", err)
	}
	return c.refuse(option, typ, err.Error())
}

// errBusy is what is said to those who come to write where somebody does.
var errBusy = fmt.Errorf("%w: another connection may write to the export", fs.ErrPermission)

// open opens an export that is about to be used.
func (c *conn) open(name string) (*Export, error) {
	x, err := c.srv.exports.Open(c.ctx, name)
	if err != nil {
		return nil, err
	}
	if !c.srv.enter(x) {
		return nil, errBusy
	}
	return x, nil
}

// choose makes x the export of the connection.
func (c *conn) choose(name string, x *Export) {
	c.export, c.writer, c.size = x, x.writer(), x.Disk.Size()
	c.context = c.context && c.contextOf == name
}

// flags returns the transmission flags of an export.
func (c *conn) flags(x *Export) (flags uint16) {
	flags = flagHasFlags | flagCache
	if c.structured {
		flags |= flagDF
	}
	w := x.writer()
	if w == nil {
		// Nothing that one connection does is news to another.
		return flags | flagReadOnly | flagCanMultiConn
	}
	flags |= flagFlush | flagFUA | flagWriteZeroes | flagFastZero
	if _, ok := w.(Trimmer); ok {
		flags |= flagTrim
	}
	if x.Shared {
		flags |= flagCanMultiConn
	}
	return flags
}

// exportName answers NBD_OPT_EXPORT_NAME, which knows no errors.
func (c *conn) exportName(name string, zeroes bool) error {
	if err := checkString(name); err != nil {
		return fmt.Errorf("export name: %w", err)
	}
	x, err := c.open(name)
	if err != nil {
		return fmt.Errorf("export %q: %w", name, err)
	}
	c.choose(name, x)
	b := binary.BigEndian.AppendUint64(nil, uint64(c.size))
	b = binary.BigEndian.AppendUint16(b, c.flags(x))
	if zeroes {
		b = append(b, make([]byte, 124)...)
	}
	if err := c.send(b); err != nil {
		c.srv.leave(x)
		return err
	}
	return nil
}

// info answers NBD_OPT_INFO and NBD_OPT_GO. done tells that haggling is over.
func (c *conn) info(option uint32, data []byte) (done bool, err error) {
	in := cutter{b: data}
	name := in.string()
	var asked []uint16
	for range in.uint16() {
		asked = append(asked, in.uint16())
		if in.bad {
			break
		}
	}
	if in.bad || len(in.b) > 0 || checkString(name) != nil {
		return false, c.refuse(option, repErrInvalid, "malformed request for an export")
	}
	var x *Export
	if option == optGo {
		x, err = c.open(name)
	} else {
		x, err = c.srv.exports.Open(c.ctx, name)
	}
	if err != nil {
		return false, c.refuseExport(option, name, err)
	}
	b := appendInfo(nil, option, infoExport,
		binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(nil, uint64(x.Disk.Size())), c.flags(x)))
	if slices.Contains(asked, infoName) {
		b = appendInfo(b, option, infoName, []byte(x.Name))
	}
	if slices.Contains(asked, infoDescription) && x.Description != "" {
		b = appendInfo(b, option, infoDescription, []byte(text(x.Description)))
	}
	if slices.Contains(asked, infoBlockSize) {
		preferred := x.PreferredBlock
		if preferred == 0 {
			preferred = preferredBlock
		}
		sizes := binary.BigEndian.AppendUint32(nil, 1)
		sizes = binary.BigEndian.AppendUint32(sizes, uint32(preferred))
		b = appendInfo(b, option, infoBlockSize, binary.BigEndian.AppendUint32(sizes, maxPayload))
	}
	if option == optGo {
		c.choose(name, x)
	} else {
		x.release()
	}
	if err := c.send(appendOptReply(b, option, repAck, nil)); err != nil {
		if option == optGo {
			c.srv.leave(x)
		}
		return true, err
	}
	return option == optGo, nil
}

func appendInfo(b []byte, option uint32, item uint16, data []byte) []byte {
	return appendOptReply(b, option, repInfo, append(binary.BigEndian.AppendUint16(nil, item), data...))
}
