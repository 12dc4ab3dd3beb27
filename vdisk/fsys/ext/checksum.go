package ext

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c continues the checksum sum over b without the inversions before and
// after that are usual elsewhere. A first sum is all ones.
func crc32c(sum uint32, b []byte) uint32 {
	return ^crc32.Update(^sum, castagnoli, b)
}

// crc16 continues sum over b, with the polynomial 0x8005, low bit first. A
// first sum is all ones.
func crc16(sum uint16, b []byte) uint16 {
	for _, c := range b {
		sum ^= uint16(c)
		for range 8 {
			low := sum & 1
			sum >>= 1
			if low != 0 {
				sum ^= 0xa001
			}
		}
	}
	return sum
}
