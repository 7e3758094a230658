//go:build tools

// Package tools names what ./check builds.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
