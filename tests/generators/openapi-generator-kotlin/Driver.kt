import client.apis.HostApi
import client.apis.RegionsApi
import client.apis.SessionsApi
import client.infrastructure.ClientError
import client.infrastructure.ClientException
import client.infrastructure.Response
import client.infrastructure.Serializer
import client.infrastructure.ServerError
import client.infrastructure.ServerException
import client.models.*

/** Drives the client that openapi-generator makes for Kotlin: ../steps.ts says what each step does. */
fun main(arguments: Array<String>) {
    val (url, tomorrowUrl, largeText) = arguments
    val largeBytes = largeText.toLong()
    val regions = RegionsApi(url)
    val sessions = SessionsApi(url)
    val session = sessions.openSession(OpenSession(ttlMs = 60_000)).id

    val tensors = listOf(
        TensorRequest(name = "w", dtype = Dtype.BF16, shape = listOf(2, 3)),
        TensorRequest(name = "b", dtype = Dtype.F32, shape = listOf(3)),
    )
    val weights = CreateRegion(model = "default", name = "weights", tensors = tensors, session = session)
    lateinit var region: Region
    val change = {
        regions.changeRegion(
            region = region.id,
            changeRegion = ChangeRegion(labels = mapOf("job" to "nightly")),
            ifMatch = "\"1\"",
        )
    }

    step("create") {
        region = regions.createRegion(weights)
        want("owner.kind", region.owner.kind, "session")
        want("session", region.session, session)
        want("tensors", region.tensors.size, 2)
        want("w.byte_size", region.tensors[0].byteSize, 12L)
    }
    step("checksum-null") {
        want("checksum", region.checksum, null)
    }
    step("get") {
        val detail = regions.getRegion(region = region.id)
        want("id", detail.id, region.id)
        want("b.name", detail.tensors[1].name, "b")
    }
    step("get-by-name") {
        want("id", regions.getRegionByName(model = "default", name = "weights").id, region.id)
    }
    step("list") {
        val page = regions.listRegions(model = "default")
        want("items", page.items.size, 1)
        want("id", page.items[0].id, region.id)
        want("next_cursor", page.nextCursor, null)
    }
    step("change") {
        val changed = change()
        want("revision", changed.revision, 2L)
        want("labels.job", changed.labels["job"], "nightly")
    }
    step("stale") {
        problemOf(412, "revision-mismatch", change)
    }
    step("seal") {
        region = regions.sealRegion(region = region.id, sealRegion = SealRegion(checksum = true))
        want("state", region.state, RegionState.sealed)
    }
    step("checksum") {
        want("algorithm", region.checksum?.algorithm, "xxh3-64-tree")
        want("value's length", region.checksum?.value?.length, 16)
    }
    step("not-found") {
        problemOf(404, "region-not-found") { regions.getRegion(region = "reg_missingmissingmissingmissi") }
    }
    step("name-taken") {
        problemOf(409, "name-taken") { regions.createRegion(weights) }
    }
    step("invalid") {
        val problem = problemOf(422, "validation-failed") {
            regions.createRegion(weights.copy(labels = mapOf("" to "x")))
        }
        problem.issues?.first()?.path
    }
    step("full") {
        val problem = problemOf(507, "pool-full") {
            regions.createRegion(CreateRegion(byteSize = 1L shl 50, ttlMs = 60_000))
        }
        "${problem.code} ${problem.requestedBytes} ${problem.availableBytes}"
    }
    if (largeBytes > 0) {
        step("large") {
            val large = regions.createRegion(CreateRegion(byteSize = largeBytes, ttlMs = 60_000))
            regions.deleteRegion(region = large.id)
            "${large.tensors[0].byteSize} ${large.storage.byteSize}"
        }
    }
    step("persist") {
        val kept = regions.createRegion(
            CreateRegion(model = "default", name = "kept", persist = true, byteSize = 64),
        )
        want("owner.kind", kept.owner.kind, "persist")
        want("state", regions.deleteRegion(region = kept.id).state, Deletion.State.deleted)
    }
    step("epoch") {
        HostApi(url).getStats().epoch
    }
    step("tomorrow") {
        val tomorrows = RegionsApi(tomorrowUrl)
        val later = tomorrows.createRegion(CreateRegion(tensors = tensors, ttlMs = 60_000))
        val problem = problemOf(404, "region-not-found-of-tomorrow") {
            tomorrows.getRegion(region = "reg_missingmissingmissingmissi")
        }
        "${later.owner.kind} ${later.storage.kind} ${later.tensors[0].dtype} ${problem.code}"
    }
    step("end") {
        want("regions", sessions.endSession(session = session).regions.toLong(), 1L)
    }
}

/** The Problem of a refusal, as the client has read it. */
private fun problemOf(status: Int, code: String, work: () -> Any): Problem {
    val (found, response) = try {
        error("want $status, got ${work()}")
    } catch (failure: ClientException) {
        failure.statusCode to failure.response
    } catch (failure: ServerException) {
        failure.statusCode to failure.response
    }
    want("status", found, status)
    val problem = checkNotNull(Serializer.moshi.adapter(Problem::class.java).fromJson(bodyOf(response)))
    want("status in the Problem", problem.status.toInt(), status)
    want("code", problem.code, code)
    return problem
}

private fun bodyOf(response: Response?) = when (response) {
    is ClientError<*> -> response.body
    is ServerError<*> -> response.body
    else -> null
} as String

/** Prints `ok NAME [what the work read]`, or `FAIL NAME: why` if it throws. */
private fun step(name: String, work: () -> Any?) {
    try {
        val told = work()
        println("ok $name ${if (told is Unit || told is Problem) "" else told}")
    } catch (why: Throwable) {
        println("FAIL $name: ${why.toString().lines().first()}")
    }
}

private fun want(what: String, read: Any?, right: Any?) =
    check(read == right) { "$what is $read, want $right" }
