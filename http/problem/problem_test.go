package problem

import "testing"

func TestProblemNamesAreThoseOfFeathers(t *testing.T) {
	for status, want := range map[int][2]string{
		400: {"BadRequest", "bad-request"}, 401: {"NotAuthenticated", "not-authenticated"}, 403: {"Forbidden", "forbidden"},
		404: {"NotFound", "not-found"}, 405: {"MethodNotAllowed", "method-not-allowed"}, 408: {"Timeout", "timeout"},
		409: {"Conflict", "conflict"}, 412: {"PreconditionFailed", "precondition-failed"}, 413: {"PayloadTooLarge", "payload-too-large"},
		414: {"URITooLong", "uri-too-long"}, 415: {"UnsupportedMediaType", "unsupported-media-type"},
		422: {"Unprocessable", "unprocessable"}, 429: {"TooManyRequests", "too-many-requests"},
		431: {"RequestHeaderFieldsTooLarge", "request-header-fields-too-large"},
		500: {"GeneralError", "general-error"}, 503: {"Unavailable", "unavailable"}, 504: {"GatewayTimeout", "gateway-timeout"},
	} {
		if p := New(status, ""); p.Name != want[0] || p.ClassName != want[1] {
			t.Errorf("%d: %s, %s; want %v", status, p.Name, p.ClassName, want)
		}
	}
}
