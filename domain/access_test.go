package domain_test

import (
	"slices"
	"testing"

	"chatsessions/domain"
)

// everything is a session with a value in every field by which lists are filtered.
func everything() *domain.Session {
	return &domain.Session{
		ID: "s1", CreatedAt: 1, CreatedBy: "pat", Type: "telemed", Room: "r1", Participants: []string{"doc", "pat"},
		Stamps: [4]*domain.Stamp{
			domain.Start: {At: 2, By: "pat"}, domain.Accept: {At: 3, By: "doc"},
			domain.Reject: {At: 3, By: "eve"}, domain.Finish: {At: 4, By: "crm"},
		},
		State: domain.StateFinished, Version: 4, UpdatedAt: 5,
	}
}

// TestFilterFieldsKeepTheirOrder: the read model stores fields by their places.
func TestFilterFieldsKeepTheirOrder(t *testing.T) {
	want := []string{"state", "type", "room", "participants", "createdBy", "startedBy", "acceptedBy", "rejectedBy", "finishedBy"}
	if got := domain.FilterFields(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFilterableValues(t *testing.T) {
	empty := domain.Session{}
	rejected := domain.Session{State: domain.StateRejected, CreatedBy: "pat", Version: 3}
	rejected.Stamps[domain.Reject] = &domain.Stamp{At: 1, By: "doc"}
	for name, test := range map[string]struct {
		session *domain.Session
		want    []string
	}{
		"no value":    {&empty, nil},
		"some values": {&rejected, []string{"state=rejected", "createdBy=pat", "rejectedBy=doc"}},
		"every value": {everything(), []string{
			"state=finished", "type=telemed", "room=r1", "participants=doc", "participants=pat",
			"createdBy=pat", "startedBy=pat", "acceptedBy=doc", "rejectedBy=eve", "finishedBy=crm",
		}},
	} {
		var got []string
		for field, value := range test.session.Filterable() {
			got = append(got, field+"="+value)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
		// A reader may stop at any value.
		for n := range test.want {
			var some []string
			for field, value := range test.session.Filterable() {
				if some = append(some, field+"="+value); len(some) == n+1 {
					break
				}
			}
			if !slices.Equal(some, test.want[:n+1]) {
				t.Errorf("%s, the first %d: %v", name, n+1, some)
			}
		}
	}
}

func TestFilterValuesOfOneField(t *testing.T) {
	for field, want := range map[string][]string{"participants": {"doc", "pat"}, "finishedBy": {"crm"}, "id": nil, "title": nil} {
		if got := everything().FilterValues(field); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", field, got, want)
		}
	}
}

func TestReadersAreNamedOnce(t *testing.T) {
	if got := everything().Readers(); !slices.Equal(got, []string{"pat", "doc"}) {
		t.Errorf("got %v", got)
	}
	alone := domain.Session{CreatedBy: "pat"}
	if got := alone.Readers(); !slices.Equal(got, []string{"pat"}) {
		t.Errorf("without participants: %v", got)
	}
}

func TestWhatRolesMayDo(t *testing.T) {
	type may struct{ write, seeAll, actForOthers bool }
	want := map[domain.Role]may{
		domain.RoleAccount: {write: true},
		domain.RoleService: {write: true, seeAll: true, actForOthers: true},
		domain.RoleAuditor: {seeAll: true},
		domain.RoleAdmin:   {write: true, seeAll: true, actForOthers: true},
	}
	if len(domain.Roles()) != len(want) {
		t.Errorf("the roles are %v", domain.Roles())
	}
	s := domain.Session{CreatedBy: "pat", Participants: []string{"doc"}}
	for _, role := range domain.Roles() {
		c := domain.Caller{Account: "eve", Role: role}
		if got := (may{c.MayWrite(), c.SeesAll(), c.MayActForOthers()}); got != want[role] {
			t.Errorf("%s: %+v, want %+v", role, got, want[role])
		}
		for account, own := range map[string]bool{"pat": true, "doc": true, "eve": false} {
			c.Account = account
			if got := c.MaySee(&s); got != (own || want[role].seeAll) {
				t.Errorf("%s as %s sees the session: %v", account, role, got)
			}
		}
	}
}
