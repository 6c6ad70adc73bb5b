package mongo

import (
	"context"
	"errors"
	"io"
	"net"

	driver "go.mongodb.org/mongo-driver/v2/mongo"
)

// Error codes of the server (src/mongo/base/error_codes.yml), named as there.
const (
	codeUnauthorized                = 13
	codeAuthenticationFailed        = 18
	codeAlreadyInitialized          = 23
	codeMaxTimeMSExpired            = 50
	codeNodeNotFound                = 74
	codeNoReplicationEnabled        = 76
	codeInvalidReplicaSetConfig     = 93
	codeNotYetInitialized           = 94
	codeIncompatibleConfig          = 103
	codeReconfigInProgress          = 109
	codeNotWritablePrimary          = 10107
	codeNotPrimaryOrSecondary       = 13436
	codeCurrentConfigNotCommitted   = 308
	codeRoleNotFound                = 31
	codeRoleAlreadyExists           = 51002
	codeUserAlreadyExists           = 51003
	codeExceededTimeLimitStepDown   = 262
	codeNewReplicaSetConfigMismatch = 104
	codeNoSuchNode                  = 110
	codeCommandNotFound             = 59
	codeBadValue                    = 2
	codeUserNotFound                = 11
	codeFailedToParse               = 9
	codeTypeMismatch                = 14
	codeNamespaceNotFound           = 26
	codeCannotCreateIndex           = 67
	codeIndexOptionsConflict        = 85
	codeIndexKeySpecsConflict       = 86
	codeDuplicateKey                = 11000
	codeInvalidOptions              = 72
)

// passing are answers that go away by themselves: elections, shutdowns, networks.
var passing = []int{
	6, 7, 64, 89, 91, 125, 134, 189, codeExceededTimeLimitStepDown, 9001, codeNotWritablePrimary, 11600, 11602, 13435, codeNotPrimaryOrSecondary, 17405,
}

// settling are answers to a reconfiguration while the one before is on its way.
var settling = []int{codeReconfigInProgress, codeCurrentConfigNotCommitted, codeMaxTimeMSExpired}

// hasCode says whether the server answered with one of the codes.
func hasCode(err error, codes ...int) bool {
	var server driver.ServerError
	if !errors.As(err, &server) {
		return false
	}
	for _, code := range codes {
		if server.HasErrorCode(code) {
			return true
		}
	}
	return false
}

// isCredentials says whether the login or what it may do was refused.
func isCredentials(err error) bool { return hasCode(err, codeAuthenticationFailed, codeUnauthorized) }

// isNetwork says whether the connection failed, so that nothing is known of the command's effect.
func isNetwork(err error) bool {
	if err == nil {
		return false
	}
	var selection driver.CommandError
	if errors.As(err, &selection) && selection.HasErrorLabel("NetworkError") {
		return true
	}
	var operation net.Error
	return driver.IsNetworkError(err) || driver.IsTimeout(err) || errors.As(err, &operation) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

// isPassing says whether asking again may do.
func isPassing(err error) bool { return hasCode(err, passing...) || isNetwork(err) }

// isRefusal says whether the server understood the command and will not take it however often it is sent.
func isRefusal(err error) bool {
	var server driver.ServerError
	return errors.As(err, &server) && !isPassing(err) && !isCredentials(err)
}
