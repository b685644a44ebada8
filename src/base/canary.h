/*
 * canary.h - deliberate bugs, to find out whether the tests notice them.
 *
 * Each breaks one promise, in a way that is easily overlooked: P1 durable, P2 no ghosts, P3 no lies, P4 no take-backs,
 * P5 honest recovery, P6 fail-stop, P7 full disk, P8 bounded, P9 no stalls, P10 elastic cores. A build with
 * -DKVS_CANARIES=ON carries all of them, asleep; the environment variable KVS_CANARY wakes one by its name. `make
 * canaries` wakes one after the other and shows which test caught it: one that nothing catches is a hole in the tests.
 * In every other build canary_on is a constant, and nothing of this is left in the program.
 *
 * Threads: the choice is made before main and never changes; canary_on may be called from any thread and costs one
 * comparison. An unknown name in KVS_CANARY ends the process with a message.
 *
 * One that nobody could tell from correct code, or that only changes timing, does not belong here.
 */
#ifndef KVS_BASE_CANARY_H
#define KVS_BASE_CANARY_H

#include <stdbool.h>

/* Name, promise, what it does. tests/canaries/run_canaries.py reads this list, too. */
#define CANARY_LIST(X)                                                                                           \
    /* the log */                                                                                                \
    X(ACK_BEFORE_WRITE, P1, "acknowledges a batch when its write starts, not when it completes")                 \
    X(NO_DSYNC, P1, "writes batches without RWF_DSYNC")                                                          \
    X(NO_SYNC_AFTER_WRITE, P1, "leaves out the fdatasync where RWF_DSYNC does not work")                         \
    X(ACK_OUT_OF_ORDER, P1, "acknowledges an older batch when the one behind it completes first")                \
    X(RELAXED_NEVER_FLUSHED, P1, "forgets the interval after which relaxed writes go to disk")                   \
    X(ROLL_BEFORE_DURABLE, P5, "begins a segment while batches of the one before are in flight")                 \
    X(DURABLE_LSN_TOO_HIGH, P5, "a batch claims that it and those in flight before it were durable")             \
    X(DURABLE_LSN_ZERO, P5, "batches do not say how far the log was durable")                                    \
    X(FAILED_WRITE_IGNORED, P6, "takes a failed write or sync of the log for a success")                         \
    X(FAILED_WRITE_SYNCED, P6, "after a failed write of the log tries a sync, and acknowledges if that works")   \
    X(WAITAOF_AT_ONCE, P1, "answers WAITAOF without waiting for the logs")                                       \
    X(APPEND_AFTER_FAILURE, P6, "accepts writes after the log has failed")                                       \
    X(RESERVE_IGNORED, P7, "lets puts use up the space reserved for deletes")                                    \
    /* the format */                                                                                             \
    X(CRC_WITHOUT_OFFSET, P3, "leaves the offset out of the checksums")                                          \
    X(CRC_WITHOUT_UID, P3, "leaves the incarnation of the segment out of the checksums")                         \
    X(CRC_WITHOUT_LAST_BYTE, P3, "leaves a record's last byte out of its checksum")                              \
    /* segments, superblock, directory */                                                                        \
    X(HEADER_NOT_SYNCED, P5, "renames a new segment before its header is durable")                               \
    X(NAME_NOT_SYNCED, P1, "does not sync the directory after a new segment's rename")                           \
    X(EVICTS_WHAT_IS_WRITTEN, P1, "evicts a segment's image while a write from it is in flight")                 \
    X(FULL_DISK_FOR_GOOD, P7, "does not try again to make a segment after a full disk")                          \
    X(SUPERBLOCK_NOT_SYNCED, P1, "does not sync the superblock")                                                 \
    X(SUPERBLOCK_BOTH_COPIES, P5, "overwrites both copies of the superblock at once")                            \
    X(FLUSH_NOT_SYNCED, P1, "does not sync the superblock that tells of a flush")                                \
    X(FLUSH_FORGOTTEN, P2, "a start counts what was flushed")                                                    \
    X(FLUSH_WITHOUT_JUMP, P1, "goes on after a flush with LSNs that it has taken away")                          \
    X(FLUSH_UNCOUNTED, P7, "does not count what was flushed as dead")                                            \
    X(FLUSH_IN_BACKUP, P1, "a backup tells of a flush that came after its moment")                               \
    X(FLUSH_HALF_SEEN, P4, "does not hold readers back while a flush ends")                                      \
    X(FLUSH_FILES_EARLY, P7, "looks for files of large values before a flush has ended")                         \
    X(LOCK_IGNORED, P3, "opens a directory that another process has locked")                                     \
    X(NAME_SYNC_SHARED_LATE, P1, "counts names as durable that were changed after the sync had begun")           \
    X(NAME_SYNC_NOT_TOLD, P1, "tells a failed sync of a directory only to those whom it was to cover")           \
    X(NAME_SYNC_FAILURE_IGNORED, P6, "takes a failed sync of a directory for a success")                         \
    /* recovery */                                                                                               \
    X(LSN_BASE_NOT_RAISED, P2, "a boot uses LSNs that an earlier one has used")                                  \
    X(EPOCH_NOT_RAISED, P5, "a boot uses the epoch of the one before")                                           \
    X(TOMBSTONES_DROPPED, P2, "recovery leaves out delete records")                                              \
    X(ORDER_BY_PLACE, P2, "recovery takes the record at the higher address for the newer one")                   \
    X(EQUAL_HASH_IS_EQUAL_KEY, P1, "runs tell keys apart by one hash of 64 bits")                                \
    X(RUN_OF_EARLIER_LIFE, P2, "counts a run for a segment whose file has begun another life since")             \
    X(RUN_SHORT_OF_TAIL, P1, "counts a run for a tail that goes on behind what the run has seen")                \
    X(OLD_STREAMS_IGNORED, P10, "recovery leaves out streams of shards that there are no more")                  \
    X(DAMAGE_CUT, P5, "takes damage below the durable watermark for a torn tail")                                \
    X(CLAIM_IGNORED, P5, "takes a segment whose first batch is damaged for an empty one")                        \
    X(GAP_IGNORED, P5, "starts although a segment of a stream is missing")                                       \
    X(TORN_TAIL_LEFT, P5, "leaves a torn tail as it is instead of zeroing it")                                   \
    X(TAIL_NOT_SYNCED, P4, "shows what it has read from a tail without a sync")                                  \
    X(SEALED_END_IGNORED, P5, "does not compare a sealed segment's end with the manifest's")                     \
    X(MANIFEST_AGE_IGNORED, P5, "does not notice that the manifest has lost its latest changes")                 \
    X(ADOPTED_NOT_SETTLED, P5, "takes what compaction gave up before an adopted segment for missing")            \
    X(BEHIND_SEALED_UNREAD, P5, "does not look for what was written behind the end of a sealed segment")         \
    /* births, deaths and moves */                                                                               \
    X(BIRTH_NOT_ENTERED, P5, "uses a segment before the manifest lists it durably")                              \
    X(RETIRED_EARLY, P1, "uses a segment again before the manifest has taken it out durably")                    \
    X(RETIRED_WHILE_READ, P3, "uses a segment again while reads from it are in flight")                          \
    X(RETIRED_UNDURABLE, P1, "gives a segment up though what has superseded its records is not durable")         \
    X(NO_COMPACTION_RESERVE, P7, "leaves no files in reserve for compaction")                                    \
    X(NO_DELETES_RESERVE, P7, "leaves no files in reserve for deletes")                                          \
    X(DELETES_RESERVE_SHARED, P7, "lets puts go on in the segments of the reserve for deletes")                  \
    X(SWING_BLIND, P4, "swings an index entry to the copy though the record was overwritten meanwhile")          \
    X(DELETES_NEVER_KEPT, P2, "compaction drops deletes that still hide an older record")                        \
    X(COMPACTION_UNVERIFIED, P3, "compaction copies records without verifying them")                             \
    X(TAIL_SHOWN_UNREAD, P3, "takes the image of an adopted tail for whole before its beginning was read")       \
    X(WARMUP_UNVERIFIED, P3, "brings a segment back into RAM without verifying it")                              \
    X(MOVES_NOT_TOLD, P2, "does not tell waiting operations that a record has moved")                            \
    X(CLOCK_STEPS_BACK, P2, "the store's time goes back with the wall clock")                                    \
    X(CLOCK_NOT_RAISED, P2, "a start does not look at what time the last boot knew")                             \
    X(COLD_EXPIRY_IGNORED, P2, "shows an expired record that was read from disk")                                \
    X(FOREIGN_EXPIRY_IGNORED, P2, "another shard's reader shows an expired record")                              \
    X(EXPIRED_RECOVERED, P2, "a start takes the record behind an expired one for the newest")                    \
    X(EXPIRED_NEVER_KEPT, P2, "compaction drops expired records that still hide an older one")                   \
    X(HIDDEN_COPY_UNTOLD, P2, "compaction copies what an unsettled overwrite hides as if nothing did")           \
    X(EXPIRED_UNSETTLED_DROPPED, P2, "an expired entry goes though an older one of its key may stand behind it") \
    X(EXPIRED_UNDURABLE_DROPPED, P4, "an expired entry goes though its record is not durable yet")               \
    X(EXPIRY_NOT_MOVED, P8, "what compaction has moved is not removed when it expires")                          \
    X(EXPIRY_PLACE_REUSED, P1, "an expiry item of an earlier life of a segment removes what is there now")       \
    X(RUN_BEFORE_SEAL, P1, "a run covers a segment before the manifest lists it durably as sealed")              \
    X(RUN_BEFORE_LOGS_STOP, P1, "the last run of a stop does not wait for the logs")                             \
    X(RUN_OF_EITHER_COPY, P1, "a run lists a record's original, to be given up, though its copy is in use")      \
    X(RUN_OF_ANOTHER_LIFE, P2, "takes what a run says of a segment's earlier life for what it holds now")        \
    X(LINKS_IGNORED, P3, "uses a file again though a backup has it, too")                                        \
    X(BACKUP_HOLDS_NOTHING, P1, "uses a segment again while a backup still has to copy it")                      \
    X(BACKUP_TAIL_TOO_LONG, P1, "a backup takes batches that were not durable at its moment")                    \
    X(BACKUP_NAMES_NOT_SYNCED, P1, "gives a backup its name before the names in it are durable")                 \
    X(BACKUP_RUNS_OF_LATER, P1, "takes runs into a backup that were made after its moment")                      \
    /* the index */                                                                                              \
    X(INDEX_HOLE, P1, "a removed slot becomes an empty one, at which later walks end")                           \
    X(INDEX_SPLIT_LOSES, P1, "a split loses the entries that lie farthest from their home")                      \
    X(INDEX_SUCCESSOR_STALE, P1, "a split is not told to the directory that will replace this one")              \
    X(INDEX_NEWEST_LAST, P4, "a new entry goes behind those with its fingerprint, not in front")                 \
    X(EPOCH_IGNORED, P3, "frees what a reader's section may still see")                                          \
    /* the store */                                                                                              \
    X(RESIDENT_KEY_IGNORED, P3, "does not compare the key of a record in RAM")                                   \
    X(COLD_KEY_IGNORED, P3, "does not compare the key of a record on disk")                                      \
    X(COLD_CHECKSUM_IGNORED, P3, "does not verify the checksum of a record on disk")                             \
    X(OWNER_READ_UNGATED, P4, "an owner shows what is not durable yet")                                          \
    X(FOREIGN_READ_UNGATED, P4, "another shard's reader shows what is not durable yet")                          \
    X(TOMBSTONE_GONE_EARLY, P4, "a deleted key's entry goes before the delete is durable")                       \
    X(REMOVE_LEAVES_OLDER, P2, "a delete leaves older entries of the key in the index")                          \
    X(COLD_REMOVE_BLIND, P2, "a delete of a key on disk answers from RAM alone")                                 \
    X(REMOVE_LOOKS_TWICE, P2, "a delete looks for records in RAM a second time, when they may have left")        \
    X(OLD_PLACES_KEPT, P2, "an operation that waits takes a record for what had lain there before")              \
    X(SETTLES_UNBOUNDED, P8, "lets any number of overwrites go unsettled")                                       \
    X(SETTLES_NOT_RAISED, P4, "a reader is not told that entries moved while it walked")                         \
    X(OVERTAKES_BUSY_KEY, P4, "an operation overtakes an earlier one on its key that waits for the disk")        \
    X(HOLD_ENDS_EARLY, P4, "gives a key free when its holder has been told, before it has concluded")            \
    X(HOLD_READS_OPENLY, P4, "lets others at a key while the record that its holder is to see is read")          \
    X(HOLD_OUT_OF_DATE, P2, "carries out what was decided of a value that has expired since")                    \
    X(EXPIRE_LOSES_VALUE, P1, "takes a large value that gets another expiry for one that is replaced")           \
    X(GROUP_SEEN_IN_PART, P4, "lets readers on other threads see a change of a group before all are there")      \
    X(GROUP_NOT_WAITED_FOR, P2, "takes what a group has appended for executed before it is")                     \
    X(GROUP_WITHOUT_JUMP, P1, "appends a group with LSNs below those that its keys had")                         \
    X(PUBLISHED_WITHOUT_JUMP, P1, "goes on with LSNs below those of a group whose changes it has shown")         \
    X(JUMP_FORGOTTEN, P1, "a log forgets to jump when it was told to before it had a segment")                   \
    X(GROUP_IN_TWO_BATCHES, P1, "lets a group be written in parts")                                              \
    X(FULL_DISK_REFUSES_READS, P7, "refuses reads, too, when the disk is full")                                  \
    /* large values */                                                                                           \
    X(VALUE_NOT_SYNCED, P1, "names a value file, and then its record, before the file is durable")               \
    X(VALUE_NAME_NOT_SYNCED, P1, "does not sync the folder after a value file's rename")                         \
    X(VALUE_UNLINKED_EARLY, P1, "removes a value file before what has superseded it is durable")                 \
    X(VALUE_UNLINKED_WHILE_READ, P3, "removes a value file while a read that has begun may need it")             \
    X(VALUE_UNCHECKED, P3, "does not verify the checksums of a value file")                                      \
    X(VALUE_ID_AGAIN, P3, "a boot gives value files ids that the one before has given")                          \
    X(LARGE_UNBOUNDED, P8, "takes any amount of memory for large values")                                        \
    /* the ring */                                                                                               \
    X(SHORT_WRITE_IS_WHOLE, P1, "takes a short write for a whole one")                                           \
    X(SHORT_SEND_IS_WHOLE, P3, "takes a short send for a whole one")                                             \
    X(EINTR_IS_END_OF_FILE, P5, "takes an interrupted read for the end of the file")                             \
    X(FAILED_WRITE_RETRIED, P6, "tries a write again that has failed with EIO")                                  \
    X(URING_NO_DSYNC, P1, "asks the kernel for a plain write where a durable one was asked for")                 \
    /* connections */                                                                                            \
    X(RECV_BUFFER_EARLY, P3, "gives a receive buffer back before what is in it was handled")                     \
    X(SLOT_GATE_LOST, P1, "a reply that was filled in later does not wait for its gate")                         \
    X(RUN_GATE_OF_FIRST, P1, "replies that leave together wait for the gate of the first of them")               \
    X(REPLIES_AS_FILLED, P4, "replies leave in the order in which they are ready, not in that of the requests")  \
    X(FAILED_GATES_ANSWER_OK, P6, "replies whose gates have failed leave as if they had been reached")           \
    X(FD_CLOSED_EARLY, P3, "closes a connection's descriptor when it drops it, and again when nothing uses it")  \
    X(OUTPUT_UNBOUNDED, P8, "goes on handling requests of a peer that does not read its replies")                \
    X(SHARED_MEMORY_UNBOUNDED, P8, "bounds what each connection holds, but not what all of them do")             \
    X(REQUEST_UNBOUNDED, P8, "keeps a request of any size")                                                      \
    X(MANY_FAVOURED, P8, "lets any number of large requests grow beyond the memory that there is for them")      \
    X(INDEX_SHARE_IGNORED, P8, "lets an index have more memory without taking it from images")                   \
    X(CLIENTS_UNBOUNDED, P8, "does not refuse connections beyond the limit")                                     \
    X(SNAPSHOT_STALE, P2, "a start takes over indexes of other segments than it has found")                      \
    X(SNAPSHOT_UNVERIFIED, P5, "pages of a snapshot are taken over unverified")                                  \
    X(SNAPSHOT_UNSETTLED, P2, "a snapshot is made of an index with overwrites that are not settled")             \
    X(SNAPSHOT_NEVER_EXPIRES, P2, "what a start takes over with a snapshot never expires")                       \
    X(SCAN_LEAVES_OLD_PRINTS, P1, "a scan leaves out keys of whose hashes the index knows few bits")             \
    X(SCAN_LEAVES_COLD, P1, "a scan leaves out keys whose records are only on disk")                             \
    X(SCAN_SHOWS_HIDDEN, P2, "a scan shows an older record of a key that has been deleted")                      \
    X(SCAN_UNGATED, P4, "a scan shows what is not durable")                                                      \
    /* the node */                                                                                               \
    X(EMPTY_WHILE_LOADING, P3, "answers as an empty store would until the store is open")                        \
    X(OWNER_ANSWERS_EARLY, P1, "an owner sends an answer to another shard before it is durable")                 \
    X(DEL_UNGATED, P1, "a DEL of several keys does not wait for its gates")                                      \
    X(READ_OVERTAKES_WRITE, P4, "a read overtakes the connection's own write to another shard")                  \
    X(READS_UNBOUNDED, P8, "cold reads may take any amount of memory")                                           \
    X(OPS_UNBOUNDED, P8, "requests under way may hold any amount of memory")                                     \
    X(WAKE_UP_LOST, P9, "a shard goes to sleep without a last look at its mailbox")

enum canary {
    CANARY_NONE,
#define CANARY_ENUM(name, promise, text) CANARY_##name,
    CANARY_LIST(CANARY_ENUM)
#undef CANARY_ENUM
};

#ifdef KVS_CANARIES
extern enum canary canary_chosen; /* canary.c sets it, before main */

static inline bool canary_on(enum canary which)
{
    return __builtin_expect(canary_chosen == which, 0);
}
#else
#define canary_on(which) ((void)(which), false)
#endif

#endif
