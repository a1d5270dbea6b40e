/**
 * Every bound and every tuned number of the server, one line each. Nothing here is computed; tuned numbers name the file
 * in `bench/` that owns them.
 */

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

export const limits = {
  /** Largest JSON body of any request but a creation; the largest that a schema takes has a tenth of it. */
  requestBodyBytes: 1 * MiB,
  /** Largest body of a creation: all the names that a region may have, and half as much again for shapes and dtypes. */
  createBodyBytes: 48 * MiB,
  /** Up to this size a creation's body is read on the event loop, in less than a millisecond. */
  inlineBodyBytes: 32 * KiB,
  /** Deepest nesting of a JSON body; the deepest one that a schema accepts has 4 levels. */
  requestBodyDepth: 16,
  /** Members and elements of a JSON body: 100,000 tensors of 8 dimensions fit. Parsed, a value takes 100 bytes and more. */
  requestBodyValues: 1_100_000,
  /** Members of one object of a JSON body; a schema takes 32 at most. Many keys are slower to parse than many values. */
  requestBodyMembers: 1000,
  /** Mistakes of one request that its answer lists. */
  validationIssues: 20,
  /** Tensors of one region. */
  regionTensors: 100_000,
  /** Names of all tensors of a region together, as JSON in UTF-8. A header then stays far below its own limit. */
  tensorNamesBytes: 32 * MiB,
  /** One tensor in a list of tensors, with the longest name, every character of it escaped, and 64 dimensions. */
  listedTensorBytes: 8 * KiB,
  /** Up to this size a region's list of tensors is held in memory and in the journal; a longer one has a file of its own. */
  heldListBytes: 64 * KiB,
  /** What is read, written or sent of a long list or header in one turn of the event loop. `bench/many.ts`. */
  sliceBytes: 256 * KiB,
  /** UTF-8 bytes of a tensor's name. */
  tensorNameBytes: 512,
  /** Dimensions of a tensor, as in DLPack's consumers. */
  tensorDimensions: 64,
  /** Entries of `__metadata__` in a header that we read or write. */
  headerMetadataEntries: 10_000,
  /** Entries in each list of a difference between two sets of tensors. */
  tensorDifferences: 20,
  /** Largest region: what a JavaScript number, and every client's, holds exactly. */
  regionBytes: Number.MAX_SAFE_INTEGER,
  /** Largest safetensors header, by the format's own rule. */
  headerBytes: 100_000_000,
  /** Data of a region starts at a multiple of this. */
  dataAlignmentBytes: 4096,
  /** Regions alive at once. */
  regions: 1_000_000,
  models: 10_000,
  /** Characters of a pool's name, and pools that one request limits. */
  poolCharacters: 64,
  poolsLimited: 64,
  /** Sessions, claims and leases by request alive at once. */
  sessions: 10_000,
  claims: 10_000,
  leases: 100_000,
  /** Operations at once, those that have ended and are told of, and for how long. */
  operationsRunning: 32,
  operationsKept: 1000,
  operationKeptMs: 10 * 60 * 1000,
  /** The events of their progress come no more often than this, for each. */
  operationProgressMs: 1000,
  /** A session's TTL, and a lease's: what they may ask for, and what they get without asking. */
  sessionTtlMinMs: 1000,
  sessionTtlMaxMs: 24 * 3600 * 1000,
  sessionTtlDefaultMs: 30_000,
  /** Characters of each text that a client says of itself. */
  clientCharacters: 256,
  /** Regions that one session's client may report as mapped. */
  attachments: 100_000,
  /** Regions of an ending session that are deleted in one turn of the event loop. */
  sessionEndSlice: 32,
  /** Largest holders that a 507 names. */
  holdersNamed: 5,
  /** Evictable regions looked at for one eviction, and shown in its answer. */
  evictScan: 10_000,
  evictionsShown: 100,
  /** A pool that is used this far tells of pressure, and of its end when it is below the other mark. */
  pressureHighPercent: 90,
  pressureLowPercent: 80,
  /** How often a creation that waits looks whether leases have ended that kept regions from being evicted. */
  evictRetryMs: 250,
  /** Longest wait for memory. */
  deadlineMs: 3600 * 1000,
  deadlineDefaultMs: 30_000,
  /** Who was handed a region's descriptor has this long to map it, whatever its linger; a second once it was mapped. */
  handOutMs: 10_000,
  handOutTakenMs: 1000,
  /** Regions that linger are asked for leases each quarter of their time, but not more and not less often than this. */
  lingerPollMinMs: 20,
  lingerPollMaxMs: 30_000,
  labels: 32,
  labelKeyCharacters: 64,
  labelValueCharacters: 256,
  /** Longest life that a TTL can ask for: 10 years. */
  ttlMs: 10 * 365 * 24 * 3600 * 1000,
  /** Longest `Prefer: wait`. */
  waitSeconds: 300,
  /** Requests that wait for a name at once. */
  waiters: 10_000,
  /** Events kept for those who resume: the smaller of these two. */
  keptEvents: 10_000,
  keptEventBytes: 16 * MiB,
  /** Texts of those that somebody read lately, as they were written for the first of them. */
  readEventBytes: MiB,
  /** Sequence numbers reserved in the journal at a time; a crash skips what is left of them. */
  sequenceBlock: 10_000,
  /** Those who follow the events at once. */
  subscribers: 10_000,
  /** Frames sent to subscribers in one turn of the event loop, and to one of them in a row. `bench/events.ts`. */
  eventSlice: 64,
  eventVisit: 16,
  /** Events that a filter may pass over in one step of a cursor. */
  eventScan: 1000,
  /** A subscriber that takes nothing for this long is closed; it resumes by id. */
  subscriberStallMs: 60_000,
  /** What is buffered for one that follows over HTTP, beside the kernel's buffers. */
  eventStreamBytes: 64 * KiB,
  /** A comment goes to those who follow over HTTP this often, so that both sides notice a dead connection. */
  eventKeepAliveMs: 15_000,
  /** Prefixes of one filter by type, and their length. */
  eventTypes: 16,
  eventTypeCharacters: 64,
  /** Largest frame that a WebSocket client may send. */
  socketFrameBytes: 64 * KiB,
  /** An upload that brings nothing for this long is ended, and with it its writer's lock. */
  uploadStallMs: 10_000,
  /**
   * What is read of the body of a refused request whose connection ends with the answer: so many bytes, for so long, and
   * for so long without any. The first GiB takes 0.4 s of processor time.
   */
  drainBytes: 1 * GiB,
  drainMs: 30_000,
  drainStallMs: 5000,
  /**
   * What the kernel keeps of a TCP connection in each direction, to about twice that: the most that one of them moves in a
   * turn of the event loop. 128 KiB is 10 % faster and keeps others waiting longer. `bench/data-plane.ts`.
   */
  socketBufferBytes: 64 * KiB,
  /** How often the server looks how far an upload has come that the runtime writes, and whether it may go on. */
  uploadLookMs: 50,
  /**
   * Up to this size a download is read into memory, whole and in this turn of the event loop (0.2 ms; of 4 MiB 1.2), before its
   * answer begins, which keeps the connection. Above, the kernel sends it from the file.
   */
  downloadCopyBytes: 1 * MiB,
  /** Ranges of one request, before those that touch are made one. */
  ranges: 64,
  /** How often the server looks whether its downloads have ended: a lease lasts that much longer. */
  downloadPollMs: 50,
  /** How long the runtime may take to open the file of a download, where nobody tells that it has. */
  downloadOpenMs: 2000,
  /** Who deletes a region waits this long at most for a download of it that ends just now, and looks this often. */
  downloadSettleMs: 250,
  downloadSettlePollMs: 5,
  /** Own descriptors looked at in one turn of the event loop. */
  descriptorSlice: 512,
  /** Regions that are sealed, or opened, in one turn: more would hold the loop for longer than a frame of a film. */
  groupMembers: 1000,
  /** Members of a group looked at in one turn of the event loop, where it need not be one turn. */
  groupSlice: 32,
  /** Descriptors in the answer about a group. */
  groupAnswerBytes: 64 * MiB,
  /** Descriptors that no connection gets; what opens one for long gets half of them at most. */
  spareDescriptors: 12,
  /** Of the descriptors that the server may have, regions without a name take this share at most: each has one. */
  memfdDescriptorsPercent: 50,
  /** Connections that have to fit, or the server does not start. */
  connectionsMin: 8,
  /** Of the connections that fit, this share is kept for requests that are answered at once. */
  answeredAtOncePercent: 15,
  /**
   * How often the server looks whether a descriptor is free, and whether one is free again. Where so many are free that
   * nobody could take them meanwhile, at one in 20 µs, it looks as much less often, until once in `idleLookMs`.
   */
  calmLookMs: 100,
  idleLookMs: 1000,
  takenDescriptorsPerMs: 50,
  distressLookMs: 5,
  /** For how long one has to be free before it is taken for calm. */
  distressEndMs: 1000,
  /** Descriptors looked at in one turn of distress: 2 µs each. */
  distressSlice: 256,
  /** In distress, how long a connection may take to bring a request, from when it was seen first. */
  distressGraceMs: 20,
  /** In distress, how long a request's body may take to come, and a peer to take anything of its answer. */
  distressBodyMs: 250,
  distressStallMs: 2000,
  /** In distress that lasts for so long, the process with the most connections to the Unix socket loses them. */
  distressPatienceMs: 250,
  /** How long a hand-off waits for its consumer, unless it says otherwise. */
  handoffDefaultMs: 60_000,
  /** Names and ids of regions that have ended of which it is remembered how. */
  endedRegions: 10_000,
  listItems: 1000,
  listItemsDefault: 100,
  /** Items found and written down in one turn of the event loop, and regions looked at for that. `bench/many.ts`. */
  listSlice: 64,
  listScan: 1000,
  /** Slices of one page, however few of the regions match that were looked at for it. */
  listSlices: 25,
  /** Life of a region without a name whose owner was lost with the journal. */
  recoveredTtlMs: 24 * 3600 * 1000,
  /** A checksum is over hashes of chunks of this size: part of the wire format, never tuned. */
  checksumChunkBytes: 64 * MiB,
  /** A checksum reads in pieces of this size. Flat from 64 KiB to 64 MiB (5.5 to 5.7 GiB/s), so nothing hangs on it. */
  hashReadBytes: 512 * KiB,
  /** A copy is read and written in pieces of this size, which stay in the processor's own caches in between; of huge pages in whole ones. `bench/load.ts`. */
  copyPieceBytes: 256 * KiB,
  /** The checksum's buffer is given back after this long without work. */
  hashBufferIdleMs: 1000,
  /**
   * Pages are allocated in windows of this size, so that it can be cancelled and a small allocation beside a large one
   * waits for a few ms only. 2 % slower than 32 MiB. `bench/latency-under-allocation.ts`.
   */
  allocateWindowBytes: 16 * MiB,
  /** What is asked of, or told, the kernel about a file's pages at a time. */
  adviseWindowBytes: 64 * MiB,
  /** Nice value of a lane's thread. It keeps others' p99 within 2x of idle, and costs speed only where every core is busy. */
  laneNice: 10,
  /** A huge page, of x86-64 and of arm64 with pages of 4 KiB. */
  hugePageBytes: 2 * MiB,
  /** Up to this size (1 MiB of data behind a header) memory is allocated and freed on the event loop: cheaper than a Worker's round trip, under 0.5 ms. */
  inlineBytes: 1 * MiB + 4 * KiB,
  /** How long the event loop allocates huge pages that files have by themselves, one after the other: 64 MiB take 0.1 ms. What is left is a Worker's. */
  inlineAllocationMs: 0.5,
  /** Proofs are read in pieces of this size: a whole number of them. */
  proofsReadBytes: 1 * MiB,
  /** What a first start makes beside regions: a directory with three folders, lock, two sockets, proofs, and three files of the journal. */
  firstStartInodes: 11,
  /** Inodes kept for a start on a file system that has none: its sockets and the journal's log, and as much again. */
  spareInodes: 6,
  /** Kept for SQLite on a full tmpfs, where even a DELETE needs a page. */
  ballastBytes: 1 * MiB,
  /** What is given up of it at a time: some pages more than one write of the journal needs. */
  ballastSliceBytes: 64 * KiB,
  /** What the journal may grow to before it is counted: its database, its log and the ballast. */
  journalBytes: 8 * MiB,
  /** Kept free below a cgroup's maximum, past which is SIGKILL: the larger of these two. */
  cgroupHeadroomBytes: 256 * MiB,
  cgroupHeadroomPercent: 5,
  /** What the pool may take of its tmpfs. */
  tmpfsPercent: 90,
  /** Draining regions are asked for leases after this long at first, then up to `drainPollMaxMs`. */
  drainPollMinMs: 5,
  drainPollMaxMs: 1000,
  /** Draining regions asked in one turn of the event loop. */
  drainPollSlice: 512,
  /** A public name that had to be mended is looked at again after this long. */
  nameLookAgainMs: 20,
  /**
   * The Worker that reads what the kernel tells of the shared directory rests this long after each read, so that a stranger
   * with 50,000 files a second there makes 100 reads and not as many as files. `bench/name-watch.ts`.
   */
  nameWatchPauseMs: 10,
  /** Public names looked at in one turn of a sweep. */
  sweepSlice: 512,
  /** Every public name is looked at within this time, even if the watch saw nothing. */
  sweepIntervalMs: 30_000,
  /** The same on a host that lets us watch nothing, and the least from sweep to sweep where the watch loses much. */
  sweepUnwatchedMs: 5000,
  /** Lines of the file of tokens, its size, and uids of one line. */
  tokens: 1000,
  tokensFileBytes: 1 * MiB,
  tokenUids: 1000,
  /** Folders that one token is held to. */
  tokenRoots: 64,
  /** How often the server looks whether the file of tokens is another one. */
  tokensLookMs: 1000,
  /** How often the server looks whether it is asked so little, in that time, that it lets go of pages of its program. */
  restLookMs: 10_000,
  restRequests: 20,
  /** Hosts that the operator lets TCP be called by. */
  allowedHosts: 100,
  /** How long requests may go on after SIGTERM. */
  shutdownGraceMs: 10_000,
  /** Creations that are still under way are cancelled this long before the grace ends, so that they can undo. */
  shutdownUndoMs: 3000,
  /** How often a stopping server looks whether requests are still under way. */
  stopPollMs: 10,
  /** A connection on which nothing moves is cut after this. Longer than `subscriberStallMs`, which says why it ends. */
  idleSeconds: 120,
  /** How long a stop waits until those who follow have read the end of their stream. */
  streamEndMs: 200,
  /** A connection that is given up is cut when it has not moved for this long. */
  endSoonSeconds: 5,
  /** How long a log line may wait for others to leave with it. */
  logFlushMs: 100,
  /** How long the last log lines may take to leave. */
  logCloseMs: 1000,
  /** Connections to the broker at once, and the share of those that fit which it may have at most. */
  brokerConnections: 4096,
  brokerConnectionsPercent: 50,
  /** Those that wait in the kernel until they are taken, and are taken before others are looked at. */
  brokerBacklog: 1024,
  brokerAccepts: 16,
  /** Longest message to or from the broker. */
  brokerFrameBytes: 64 * KiB,
  brokerTokenCharacters: 4096,
  /** Descriptors of a region in one answer; of one connection, and of all, that were sent and not read. */
  brokerDescriptors: 250,
  /** What one message may tell of mappings. */
  brokerReports: 256,
  brokerUnreadDescriptors: 250,
  brokerUnreadDescriptorsOfAll: 1000,
  /** A connection that says nothing at first, and one that leaves its answers unread, is ended; that is looked at this often. */
  brokerHelloMs: 10_000,
  brokerStallMs: 30_000,
  brokerLookMs: 1000,
  /** Messages of one that is ended for its own mistake that are read, so that it can read why. */
  brokerPassedOver: 1000,
  /** How long the broker waits where it can take no connection, and how long where its Worker died. */
  brokerRestMs: 5,
  brokerRestartMs: 1000,
  /** Regions of which its Worker may know enough to hand them out by itself, the longest descriptor of such, and how many it may be ahead. */
  brokerTickets: 1024,
  brokerTicketBytes: 4 * KiB,
  brokerAhead: 1000,
  /** How long it keeps what it handed out to itself, if there is nothing else to tell. */
  brokerTellMs: 5,
  /** Requests answered in one turn of the event loop. `bench/broker.ts`. */
  brokerSlice: 32,
  /** How long a device's driver may take for one call before whoever waits for it is answered without it. */
  driverAnswerMs: 30_000,
  /** How long a diagnosis without a server waits for it. */
  driverLookMs: 5000,
  /** The same for NVML, without whose answer a device is told of all the same. */
  nvmlAnswerMs: 2000,
  /** Elastic pools, and pages of one; what a page may be at most, and is unless somebody says. */
  elasticPools: 1000,
  elasticPages: 65_536,
  elasticPageBytesMax: 1 * GiB,
  elasticPageBytesDefault: 64 * MiB,
  /** Workers of one pool, what one answer lists of a pool, and runs of its map that are written down in one turn of the event loop. */
  elasticWorkers: 1024,
  elasticListed: 1000,
  elasticSlice: 4096,
  /** How long room is waited for that workers have to let go of, where nobody says. */
  elasticEvictMs: 10_000,
  /** Processes that copy to devices at once, and how often each is looked at. */
  copiers: 2,
  copierLookMs: 100,
  /** How long an fd holder may be told to wait for a server. */
  holderTtlMinMs: 1000,
  holderTtlMaxMs: 7 * 24 * 3600 * 1000,
  /** Connections of an fd holder: its server's, and those who only ask how it is. */
  holderConnections: 16,
  /** Messages of one connection that an fd holder answers before it looks at the others. */
  holderTurn: 64,
  /** Requests that wait for an fd holder's answer at once: far less than its socket takes. */
  holderWindow: 32,
  /** How long an fd holder may take to answer, and who connects to it to show the lock. */
  holderAnswerMs: 10_000,
  /** How often a connection that it closes at once is tried again, before a server takes it for out of reach. */
  holderAttempts: 50,
  /** How long a diagnosis waits for its answer. */
  holderLookMs: 2000,
  /** Where the machine has no descriptor left, an fd holder takes connections again after this. */
  holderRestMs: 100,
  /** Descriptors of an fd holder that it needs for itself and for connections. */
  holderOwnDescriptors: 64,
  /** An fd holder that ended is replaced at once; one that ends soon again after this, and after twice as long each time. */
  holderRetryMinMs: 100,
  holderRetryMaxMs: 30_000,
  /** How long a start waits for a lock whose server is gone, while the fd holder still has to read it. */
  lockPatienceMs: 3000,
  lockPollMs: 5,
  /** Longest Unix socket path, less its NUL (unix(7)). */
  socketPathBytes: 107,
} as const;
