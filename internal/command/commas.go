package command

import "fmt"

// Commas returns n in decimal with commas between the thousands, as Plan 9's
// tools print sizes. n is not negative.
func Commas(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", Commas(n/1000), n%1000)
}
