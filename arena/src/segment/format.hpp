// The bytes of a segment. docs/design/format.md is the specification with a
// worked example; this file and it change together, with `format_version`.
//
// All numbers are little-endian and of fixed width; all positions are byte
// offsets from the start of the segment. Enumerators are never renumbered.
#pragma once

#include "base/base.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ndarena::segment {

constexpr std::array<char, 8> segment_magic = {'N', 'D', 'A', 'R', 'E', 'N', 'A', '\x1a'};
constexpr std::uint32_t byte_order_mark = 0x01020304;
constexpr std::uint32_t format_version = 1;

constexpr unsigned granule_shift = 6;
constexpr std::uint64_t granule = std::uint64_t{1} << granule_shift;  // every block is a multiple
constexpr std::uint64_t format_page = 4096;
constexpr std::uint64_t max_capacity = std::uint64_t{1} << 44;  // 16 TiB
constexpr std::uint64_t max_alignment = std::uint64_t{2} << 20;

constexpr unsigned second_level_log2 = 5;
constexpr unsigned second_level_count = 1U << second_level_log2;
constexpr unsigned first_level_count = 40;
constexpr std::uint64_t cache_line = 64;  // what one entry of the undo log restores
constexpr std::uint32_t undo_entry_count = 48;
constexpr unsigned radix_shift = 9;  // 512 pointers a page, two levels of pages
constexpr std::uint64_t radix_fanout = std::uint64_t{1} << radix_shift;
constexpr std::uint64_t max_chunks = radix_fanout * radix_fanout;

constexpr std::uint32_t nil = 0xFFFFFFFF;  // no record

// Bits of features_compatible.
namespace feature {
// The file's size belongs to somebody else: never cut or lengthened.
constexpr std::uint64_t fixed_size = 1;
// A shared segment whose name goes with its last process.
constexpr std::uint64_t transient = 2;
}  // namespace feature

// Page 0. Written once, when the segment is formatted; never changed.
struct file_header {
    std::array<char, 8> magic;
    std::uint32_t byte_order;
    std::uint32_t version;
    std::uint64_t features_compatible;    // unknown bits: still readable and writable
    std::uint64_t features_read_only;     // unknown bits: readable only
    std::uint64_t features_incompatible;  // unknown bits: refuse
    std::array<std::uint8_t, 16> uuid;
    std::uint64_t created;  // seconds since 1970
    std::uint64_t alignment;
    std::uint32_t granule_shift;
    std::uint32_t chunk_shift;  // log2 of the records in a chunk
    std::uint32_t slot_count;
    std::uint32_t transit_count;
    std::uint32_t second_level_log2;
    std::uint32_t first_level_count;
    std::uint32_t undo_entry_count;
    std::uint32_t radix_shift;
    std::array<std::uint64_t, 2> root_offset;
    std::uint64_t control_offset;
    std::uint64_t heads_offset;
    std::uint64_t undo_offset;
    std::uint64_t radix_offset;
    std::uint64_t slots_offset;
    std::uint64_t transit_offset;
    std::uint64_t data_offset;
    std::array<std::uint8_t, 4092 - 176> reserved;
    std::uint32_t crc;  // CRC-32C of all bytes before it
};
static_assert(sizeof(file_header) == 4096);
static_assert(offsetof(file_header, uuid) == 40);
static_assert(offsetof(file_header, alignment) == 64);
static_assert(offsetof(file_header, root_offset) == 104);
static_assert(offsetof(file_header, data_offset) == 168);
static_assert(offsetof(file_header, crc) == 4092);

// Pages 1 and 2: the durable roots. The valid one with the higher sequence is
// what survives a power failure.
struct root_page {
    std::array<char, 8> magic;
    std::array<std::uint8_t, 16> uuid;
    std::uint64_t sequence;
    std::uint64_t directory;  // offset of the directory's root node, 0: empty
    std::uint64_t watermark;
    std::uint64_t capacity;
    std::uint64_t epoch;  // of the directory
    std::array<std::uint8_t, 4092 - 64> reserved;
    std::uint32_t crc;
};
static_assert(sizeof(root_page) == 4096);
static_assert(offsetof(root_page, crc) == 4092);
constexpr std::array<char, 8> root_magic = {'N', 'D', 'A', 'R', 'O', 'O', 'T', '\x1a'};

// The control page: volatile state, meaningful only while the instance it was
// written by is unchanged. `generation` is odd while a change is under way.
struct control_page {
    // locks; each word is slot + 1 | incarnation << 12 | waiters << 31
    std::atomic<std::uint32_t> heap_lock;
    std::atomic<std::uint32_t> commit_lock;
    std::atomic<std::uint32_t> flush_lock;
    std::atomic<std::uint32_t> directory_lock;
    std::uint64_t generation;
    std::uint64_t flush_started;  // flushes begun and ended, under flush_lock
    std::uint64_t flush_done;
    std::uint64_t reserved_locks[3];
    // where this state was written
    std::array<std::uint8_t, 16> boot;
    std::uint64_t device;
    std::uint64_t inode;
    std::uint64_t inode_generation;
    std::uint64_t mount;
    std::uint64_t session;        // random; part of every serial
    std::uint64_t durable_error;  // errno of a flush that failed: all later ones do
    // From here on the undo log protects what it says, line by line.
    std::uint64_t capacity;
    std::uint64_t watermark;    // [0, watermark) is committed but for punched blocks
    std::uint64_t initialized;  // 1 once the volatile state is whole
    std::uint64_t unclean;      // 1: space beyond the watermark may hold old bytes
    std::uint64_t metadata;     // bytes of metadata blocks
    std::uint64_t reserved_space[3];
    // one line for what nearly every operation changes
    std::uint64_t serial;           // count of allocations of this session
    std::uint64_t allocated;        // bytes of allocated blocks
    std::uint64_t peak_allocated;   // advisory
    std::uint64_t first_level;      // bitmap of the free lists, see second_level
    std::uint32_t allocated_count;  // blocks
    std::uint32_t free_count;
    std::uint32_t record_bump;   // records ever taken into use
    std::uint32_t record_free;   // first of the list of unused records
    std::uint32_t record_spare;  // how many are on that list
    std::uint32_t chunk_count;
    std::uint32_t first_block;  // lowest and highest block, by address
    std::uint32_t last_block;
    // freed pages that wait for purging, oldest first
    std::uint32_t purge_first;
    std::uint32_t purge_last;
    std::uint64_t purge_bytes;
    // transit table
    std::uint32_t transit_free;  // first of the list of unused tokens
    std::uint32_t transit_bump;  // tokens ever taken into use
    std::uint32_t in_transit;    // tokens in flight
    std::uint32_t reserved_transit;
    std::uint64_t reserved_queues[4];
    std::array<std::uint32_t, first_level_count> second_level;  // bitmaps of the free lists
    std::uint64_t reserved_bitmaps[4];
    // the directory of names, one line
    std::uint64_t directory_root;    // the volatile root's node, 0: no names
    std::uint32_t directory_record;  // where its record may be
    std::uint32_t ledger;            // record of the commit that is being carried out, or nil
    std::uint32_t dropped_first;     // ledgers whose drops wait, oldest first
    std::uint32_t dropped_last;
    std::uint64_t epoch;            // rises with every commit
    std::uint64_t durable;          // epoch of the names in the current root page
    std::uint64_t snapshot_serial;  // blocks with a higher number are in no stored root
    std::uint64_t reserved_directory[2];
    // advisory, changed by atomic steps outside the lock
    std::uint64_t refused;  // allocations that found no room
    std::uint64_t claims;   // slots claimed: who sees it unchanged is as alone as before
    std::array<std::uint64_t, 6> reserved;
};
static_assert(sizeof(control_page) == 640);
static_assert(offsetof(control_page, boot) == 64);
static_assert(offsetof(control_page, capacity) == 128);
static_assert(offsetof(control_page, serial) == 192);
static_assert(offsetof(control_page, purge_first) == 256);
static_assert(offsetof(control_page, second_level) == 320);
static_assert(offsetof(control_page, directory_root) == 512);
static_assert(offsetof(control_page, epoch) == 536);
static_assert(offsetof(control_page, refused) == 576);
static_assert(offsetof(control_page, claims) == 584);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

// Old contents of cache lines of metadata, the newest last. Playing back
// entries [0, count) in reverse restores the state before the operation.
struct undo_page {
    std::atomic<std::uint64_t> count;
    std::uint64_t reserved[7];
    std::array<std::uint64_t, undo_entry_count> offsets;
    std::array<std::array<std::uint64_t, cache_line / 8>, undo_entry_count> lines;
};
static_assert(sizeof(undo_page) == 3520);
static_assert(offsetof(undo_page, offsets) == 64);
static_assert(offsetof(undo_page, lines) == 448);

enum class block_state : std::uint8_t {
    unused = 0,  // the record describes nothing
    free = 1,
    allocated = 2,
    metadata = 3,  // chunks of records, radix pages
    punching = 4,  // held by the process that is giving its pages back
};

// One block. The two words marked A/F mean different things in allocated and
// free blocks. Invariant of free blocks: bytes [dirty, size) read as zeros.
struct block_record {
    std::uint64_t offset;
    std::uint64_t size;     // multiple of the granule
    std::uint64_t payload;  // A: bytes asked for        F: dirty prefix
    std::uint64_t serial;   // A: identity of the block  F: time of freeing, ms
    std::uint32_t prev_physical;
    std::uint32_t next_physical;
    std::uint32_t prev_free;  // F: free list; unused records: next_free only
    std::uint32_t next_free;
    std::uint32_t prev_purge;  // F: purge queue    A: names that hold it
    std::uint32_t next_purge;
    std::uint32_t holders;  // rows + transit tokens + names that hold it
    block_state state;
    std::uint8_t flags;
    std::uint8_t colour;  // payload starts `colour` KiB into the block
    std::uint8_t reserved;
};
static_assert(sizeof(block_record) == 64);
static_assert(offsetof(block_record, holders) == 56);

namespace block_flag {
constexpr std::uint8_t holes = 1;   // some pages may have no disk block: commit before use
constexpr std::uint8_t queued = 2;  // on the purge queue
}  // namespace block_flag

// One process that has the segment open for writing. Alive while byte
// `lock_base + index` is locked.
struct slot_entry {
    std::atomic<std::uint32_t> state;  // one of the three below
    std::uint32_t incarnation;
    std::uint32_t pid;
    std::uint32_t reserved0;
    std::uint64_t claimed;  // seconds since 1970
    std::array<std::uint64_t, 5> reserved;
};
static_assert(sizeof(slot_entry) == 64);
constexpr std::uint32_t slot_unused = 0;
constexpr std::uint32_t slot_in_use = 1;   // its row may have bits
constexpr std::uint32_t slot_leaving = 2;  // the same, of a process that is about to end

// What one commit of the directory has to do to other blocks. It lies in a block
// of its own; whoever finds the commit unfinished goes on where it stopped.
// `adds` records that the new names hold come first, then `drops` records that
// they no longer do; a drop that was carried out is nil.
struct name_ledger {
    std::uint64_t epoch;  // after the commit
    std::uint32_t adds;
    std::uint32_t drops;
    std::uint32_t done;      // of both: how many have been carried out
    std::uint32_t kept;      // drops that wait
    std::uint32_t released;  // of the waiting ones: how many have been looked at
    std::uint32_t next;      // record of the next ledger with waiting drops, or nil
};
static_assert(sizeof(name_ledger) == 32);

// A reference on its way between two processes. It counts as a holder of its
// block.
struct transit_token {
    std::uint64_t serial;   // session ^ number, from the same count as the blocks'
    std::uint64_t noticed;  // when its sender was found dead, ms; 0: not yet
    std::uint32_t record;   // of the block; unused tokens: the next of their list
    std::uint32_t sender;   // the sender's lock word: slot and incarnation
    std::uint32_t state;    // 0 unused, 1 in flight
    std::uint32_t readers;  // attachments that it is still good for
};
static_assert(sizeof(transit_token) == 32);

// Lock bytes lie far beyond any data: slots first, then these.
constexpr std::uint64_t lock_base = std::uint64_t{1} << 62;
constexpr std::uint64_t open_lock_byte = 4000;
// A reader without a slot locks the byte of the epoch whose names it sees.
constexpr std::uint64_t epoch_lock_base = std::uint64_t{1} << 56;
constexpr std::uint32_t max_slots = 3968;

// Positions and counts of one segment, derived from three numbers.
struct geometry {
    std::uint32_t chunk_shift = 10;
    std::uint32_t slot_count = 256;
    std::uint32_t transit_count = 4096;

    // Segments below 16 MiB get smaller tables.
    static geometry for_capacity(std::uint64_t capacity) noexcept;

    std::uint64_t control_offset() const noexcept { return 3 * format_page; }
    std::uint64_t heads_offset() const noexcept { return 4 * format_page; }
    std::uint64_t undo_offset() const noexcept { return 6 * format_page; }
    std::uint64_t radix_offset() const noexcept { return 7 * format_page; }  // top, then first page
    std::uint64_t slots_offset() const noexcept { return 9 * format_page; }
    std::uint64_t transit_offset() const noexcept;
    std::uint64_t data_offset() const noexcept;

    std::uint32_t records_per_chunk() const noexcept { return 1U << chunk_shift; }
    std::uint64_t row_bytes() const noexcept { return records_per_chunk() / 8; }
    std::uint64_t chunk_bytes() const noexcept;
    std::uint64_t min_capacity() const noexcept {
        return data_offset() + chunk_bytes() + 2 * format_page;
    }
};

// Fills a header for a new segment, checksum included.
void make_header(file_header& header, const geometry& geo, std::uint64_t alignment,
                 const std::array<std::uint8_t, 16>& uuid, std::uint64_t created,
                 std::uint64_t features_compatible) noexcept;

// Judges a header that was read. On success `geo` holds its geometry.
result<void> check_header(const file_header& header, bool writable, geometry& geo,
                          const std::string& path);

}  // namespace ndarena::segment
