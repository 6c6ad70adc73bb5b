package reconcilers

import (
	"fmt"
	"io"
	"os"
)

// maxFile is how large a file may be that a manifest names to be read whole, such as a certificate authority.
const maxFile = 1 << 20

// ReadInside reads a file of a folder. A path or a link that leaves the folder is refused, and so is a file above 1 MiB.
func ReadInside(folder, name string) (string, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(content) > maxFile {
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return string(content), err
}
