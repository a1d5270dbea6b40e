// Drives the client that ogen makes: ../steps.ts says what each step does.
package main

import (
	"context"
	"fmt"

	"drive/client"
)

var ctx = context.Background()

func main() {
	url, tomorrowUrl, largeBytes := arguments()
	api := must(client.NewClient(url))
	session := as[*client.SessionHeaders](api.OpenSession(ctx, &client.OpenSession{TTLMs: client.NewOptInt32(60_000)})).Response

	weights := func() *client.CreateRegion {
		return &client.CreateRegion{
			Name: client.NewOptString("weights"),
			Tensors: []client.TensorRequest{
				{Name: "w", Dtype: client.DtypeBF16, Shape: []int64{2, 3}},
				{Name: "b", Dtype: client.DtypeF32, Shape: []int64{3}},
			},
			Session: client.NewOptString(session.ID),
		}
	}
	create := func(request *client.CreateRegion) client.Region {
		return as[*client.CreateRegionCreated](api.CreateRegion(ctx, request)).Response
	}
	// As the answer's header has it.
	var etag string
	get := func(id string) client.RegionDetail {
		answer := as[*client.GetRegionOKHeaders](api.GetRegion(ctx, client.GetRegionParams{Region: id}))
		etag = answer.ETag.Value
		return answer.Response
	}
	var id string

	step("create", func() string {
		region := create(weights())
		want("owner.kind", region.Owner.Kind, "session")
		want("session", region.Session.Value, session.ID)
		want("tensors", len(region.Tensors), 2)
		want("w.byte_size", region.Tensors[0].ByteSize, 12)
		id = region.ID
		return ""
	})
	step("checksum-null", func() string {
		detail := get(id)
		want("checksum is null", detail.Checksum.Null, true)
		return ""
	})
	step("get", func() string {
		detail := get(id)
		want("id", detail.ID, id)
		want("b.name", detail.Tensors[1].Name, "b")
		return ""
	})
	step("get-by-name", func() string {
		params := client.GetRegionByNameParams{Model: "default", Name: "weights"}
		want("id", as[*client.RegionDetailHeaders](api.GetRegionByName(ctx, params)).Response.ID, id)
		return ""
	})
	step("list", func() string {
		params := client.ListRegionsParams{Model: client.NewOptString("default")}
		page := as[*client.RegionList](api.ListRegions(ctx, params))
		want("items", len(page.Items), 1)
		want("id", page.Items[0].ID, id)
		want("next_cursor is null", page.NextCursor.Null, true)
		return ""
	})
	change := func() (client.ChangeRegionRes, error) {
		labels := client.ChangeRegionLabels{"job": client.NewNilString("nightly")}
		return api.ChangeRegion(ctx,
			&client.ChangeRegion{Labels: client.NewOptChangeRegionLabels(labels)},
			client.ChangeRegionParams{Region: id, IfMatch: client.NewOptString(etag)})
	}
	step("change", func() string {
		changed := as[*client.RegionHeaders](change()).Response
		want("revision", changed.Revision, 2)
		want("labels.job", changed.Labels["job"], "nightly")
		return ""
	})
	step("stale", func() string {
		problem := client.Problem(*as[*client.ChangeRegionPreconditionFailed](change()))
		problemOf(problem, 412, "revision-mismatch")
		return ""
	})
	var sealed client.Region
	step("seal", func() string {
		request := client.NewOptSealRegion(client.SealRegion{Checksum: client.NewOptBool(true)})
		sealed = as[*client.RegionHeaders](api.SealRegion(ctx, request, client.SealRegionParams{Region: id})).Response
		want("state", sealed.State, client.RegionStateSealed)
		return ""
	})
	step("checksum", func() string {
		want("checksum is null", sealed.Checksum.Null, false)
		want("algorithm", sealed.Checksum.Value.Algorithm, "xxh3-64-tree")
		want("value's length", len(sealed.Checksum.Value.Value), 16)
		return ""
	})
	missing := func(api *client.Client) client.Problem {
		answer, err := api.GetRegion(ctx, client.GetRegionParams{Region: "reg_missingmissingmissingmissi"})
		return client.Problem(*as[*client.GetRegionNotFound](answer, err))
	}
	step("not-found", func() string {
		problemOf(missing(api), 404, "region-not-found")
		return ""
	})
	step("name-taken", func() string {
		answer, err := api.CreateRegion(ctx, weights())
		problemOf(client.Problem(*as[*client.CreateRegionConflict](answer, err)), 409, "name-taken")
		return ""
	})
	step("invalid", func() string {
		request := weights()
		request.Labels = client.NewOptCreateRegionLabels(client.CreateRegionLabels{"": "x"})
		answer, err := api.CreateRegion(ctx, request)
		problem := client.Problem(*as[*client.CreateRegionUnprocessableEntity](answer, err))
		problemOf(problem, 422, "validation-failed")
		return problem.Issues[0].Path
	})
	step("full", func() string {
		answer, err := api.CreateRegion(ctx, ttl(&client.CreateRegion{ByteSize: client.NewOptInt64(1 << 50)}))
		problem := client.Problem(*as[*client.CreateRegionInsufficientStorage](answer, err))
		problemOf(problem, 507, "pool-full")
		return fmt.Sprint(problem.Code, " ", problem.RequestedBytes.Value, " ", problem.AvailableBytes.Value)
	})
	remove := func(id string) *client.Deletion {
		return as[*client.Deletion](api.DeleteRegion(ctx, client.DeleteRegionParams{Region: id}))
	}
	if largeBytes > 0 {
		step("large", func() string {
			large := create(ttl(&client.CreateRegion{ByteSize: client.NewOptInt64(largeBytes)}))
			remove(large.ID)
			return fmt.Sprint(large.Tensors[0].ByteSize, " ", large.Storage.ByteSize)
		})
	}
	step("persist", func() string {
		kept := create(&client.CreateRegion{
			Name: client.NewOptString("kept"), Persist: client.NewOptBool(true), ByteSize: client.NewOptInt64(64),
		})
		want("owner.kind", kept.Owner.Kind, "persist")
		want("state", remove(kept.ID).State, client.DeletionStateDeleted)
		return ""
	})
	step("epoch", func() string {
		return fmt.Sprint(as[*client.Stats](api.GetStats(ctx)).Epoch)
	})
	step("tomorrow", func() string {
		tomorrows := must(client.NewClient(tomorrowUrl))
		later := as[*client.CreateRegionCreated](tomorrows.CreateRegion(ctx, ttl(&client.CreateRegion{Tensors: weights().Tensors}))).Response
		problem := missing(tomorrows)
		problemOf(problem, 404, "region-not-found-of-tomorrow")
		return fmt.Sprint(later.Owner.Kind, " ", later.Storage.Kind, " ", later.Tensors[0].Dtype, " ", problem.Code)
	})
	step("end", func() string {
		end := as[*client.SessionEnd](api.EndSession(ctx, client.EndSessionParams{Session: session.ID}))
		want("regions", end.Regions, 1)
		return ""
	})
}

func ttl(request *client.CreateRegion) *client.CreateRegion {
	request.TTLMs = client.NewOptInt64(60_000)
	return request
}

// as is the answer, if it is the one that was hoped for: ogen has a type for each.
func as[Right any](answer any, err error) Right {
	right, isRight := must(answer, err).(Right)
	if !isRight {
		panic(fmt.Sprintf("the answer is %T %+v", answer, answer))
	}
	return right
}

func problemOf(problem client.Problem, status int32, code string) {
	want("status in the Problem", problem.Status, status)
	want("code", problem.Code, code)
}
