// Package ext finds the free blocks of ext2, ext3 and ext4.
package ext
