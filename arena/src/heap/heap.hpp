// Layer 5: the arena as one process uses it. Puts together the segment (bytes
// and slots), the undo log and TLSF under the segment's lock, and adds what
// needs a process: the pointer map, ownership rows, committing and purging
// pages, recovery, fork.
//
// Two locks. `mutex_` excludes the threads of this process and guards all
// process-private state; inside it, for as short as possible, the slot lock
// `heap_lock` excludes other processes. No system call that can block runs
// under the slot lock; committing and punching run under neither.
#pragma once

#include "heap/pointer_map.hpp"
#include "heap/recycle.hpp"

#include <memory>
#include <string>
#include <vector>

namespace ndarena::heap {

using segment::open_mode;
using segment::segment_kind;
using segment::segment_options;

struct statistics {
    std::uint64_t capacity = 0;
    std::uint64_t committed = 0;  // bytes below the watermark
    std::uint64_t allocated = 0;  // bytes of allocated blocks
    std::uint64_t peak_allocated = 0;
    std::uint64_t largest_free = 0;  // largest request sure to fit, growth included
    std::uint64_t n_blocks = 0;      // allocated blocks
    std::uint64_t n_free_blocks = 0;
    std::uint64_t resident = 0;   // bytes of the mapping in memory
    std::uint64_t oom_count = 0;  // requests refused for want of room
    std::uint64_t processes = 0;  // that have it open for writing
    std::uint64_t in_transit = 0;
    std::uint64_t metadata = 0;   // bytes of the arena's own tables
    std::uint64_t warm_free = 0;  // freed bytes kept for reuse
};

// A block as every process that has the segment open can name it.
struct block_id {
    std::uint64_t offset = 0;  // of the payload
    std::uint64_t serial = 0;  // no two blocks of a session have the same
    std::uint32_t record = 0;
    std::uint8_t colour = 0;  // KiB from the start of the block to the payload
};

// A message's own hold on a block.
struct token {
    std::uint32_t index = segment::nil;
    std::uint64_t serial = 0;
};

// The directory's root at one moment.
struct names_root {
    std::uint64_t offset = 0;  // of its node, 0: no names
    std::uint32_t record = segment::nil;
    std::uint64_t epoch = 0;
};

// A block that stored names lead to, and how to find all of them.
struct survivor {
    std::uint64_t offset = 0;  // of the payload
    std::uint64_t nbytes = 0;
    std::uint8_t colour = 0;
};
using find_survivors = result<std::vector<survivor>> (*)(const segment::segment& seg,
                                                         const segment::root_page& root);

enum class view_state : std::uint8_t {
    pristine = 0,
    warm = 1,
    punched = 2,
    allocated = 3,
    metadata = 4,
    moving = 5,
};
struct block_view {
    std::uint64_t offset;
    std::uint64_t size;
    view_state state;
};

// What this process has asked of the arena. Bytes as they were asked for.
struct process_counts {
    std::uint64_t n_allocations = 0;
    std::uint64_t n_deallocations = 0;
    std::uint64_t allocated = 0;
    std::uint64_t peak_allocated = 0;
    std::uint64_t n_failed = 0;
};

class heap : public std::enable_shared_from_this<heap> {
public:
    // Opens a segment, or returns the heap this process already has for it.
    // `survivors` finds what the stored names lead to, where the rest of the
    // state is gone.
    static result<std::shared_ptr<heap>> open(const segment_options& options,
                                              find_survivors survivors = nullptr);
    // The heap of this process whose mapping contains the address.
    static std::shared_ptr<heap> find(const void* address) noexcept;
    // The writable one of a file or shared segment, by `session()`.
    static std::shared_ptr<heap> find_session(std::uint64_t session) noexcept;

    // `keep_alive` is let go of when nothing touches the memory any more.
    heap(std::unique_ptr<segment::segment> seg, std::shared_ptr<void> keep_alive);
    ~heap();
    heap(const heap&) = delete;
    heap& operator=(const heap&) = delete;

    // -- allocation; thread-safe, never throws, calls nothing foreign --
    // At least `nbytes` (0 counts as 1) at a multiple of `alignment` (0: the
    // arena's); null if refused, see `refusal`.
    void* allocate(std::uint64_t nbytes, std::uint64_t alignment, bool zero) noexcept;
    // False if the address is not the start of a live block of this process.
    bool deallocate(void* address) noexcept;
    // Null: refused, the old block is untouched. Content is kept up to the
    // smaller size.
    void* reallocate(void* address, std::uint64_t nbytes) noexcept;
    // Size that was asked for, 0 if not a live block of this process.
    std::uint64_t size_of(const void* address) noexcept;
    // The address lies in the mapping (of this heap or of its fork successor).
    bool contains(const void* address) const noexcept;
    // Why this process's last request was refused, empty if none was.
    std::string refusal() noexcept;

    // -- references; a block lives as long as this process has one, a row or a
    // token of any process holds it --
    // The block that starts at the address; false if this process has none.
    bool identify(const void* address, block_id& id, std::uint64_t& nbytes) noexcept;
    // One reference more, given back by `deallocate`. False as above.
    bool retain(const void* address) noexcept;
    // A token for a message about the block, good for `readers` attachments.
    // Errors: unsupported (private arenas), no_memory (too many on their way).
    bool can_send() const noexcept;
    result<token> send(const void* address, std::uint32_t readers);
    // A reference to the block of a message, in the place of its token's if
    // that is still there. Errors: stale.
    result<void*> attach(const block_id& id, const token& ticket, std::uint64_t& nbytes);

    // -- names; the directory layer knows what they are --
    names_root names() const noexcept;
    // A reference to a block that a name holds. Errors: stale (the names have
    // changed since `seen`), corruption (there is no such block).
    result<void*> hold_named(const names_root& seen, std::uint64_t offset, std::uint32_t hint,
                             std::uint64_t nbytes);
    result<std::uint32_t> resolve_named(std::uint64_t offset, std::uint32_t hint);
    // A commit, under the directory lock: `ledger` (at `address`), a block of this process, was
    // filled with the records that names hold from now on, and those that they
    // no longer do.
    static std::uint64_t ledger_bytes(std::size_t adds, std::size_t drops) noexcept;
    void fill_ledger(void* address, const std::vector<std::uint32_t>& adds,
                     const std::vector<std::uint32_t>& drops) noexcept;
    result<void> commit_names(std::uint64_t root, std::uint32_t record, const void* ledger);
    void finish_names() noexcept;  // of whoever died in it
    std::uint64_t release_dropped() noexcept;
    segment::slot_lock& directory_lock() noexcept { return directory_lock_; }
    std::uint32_t owner_word() const noexcept { return seg_->owner_word(); }
    // For readers without a slot: what the names of the epoch lead to is not
    // reused from `pin`, if the names are unchanged after it, to `unpin`.
    result<void> pin(std::uint64_t epoch) noexcept { return seg_->pin(epoch); }
    void unpin(std::uint64_t epoch) noexcept { seg_->unpin(epoch); }
    // An error unless this process can change the arena.
    result<void> require_usable();
    // One object of a higher layer, made when first asked for, destroyed first.
    void* companion(void* (*make)(heap&), void (*destroy)(void*) noexcept);
    // How many names hold each record, for comparing with the tree.
    void count_names(std::vector<std::uint32_t>& names, std::vector<std::uint32_t>& waiting,
                     std::vector<std::string>& findings);

    // -- durability --
    // What outlives all processes and the machine; false for memory.
    bool is_durable() const noexcept;
    bool has_unflushed_names() const noexcept;
    // This process is the last to write and has, or may have, something to flush.
    bool wants_last_flush() const noexcept;
    void forgo_last_flush(bool forgo) noexcept { forgoes_flush_ = forgo; }
    // After it returned, power loss keeps the names of now and every array that
    // is not modified since. Errors: os (and from then on every time), lock_timeout.
    result<void> flush();

    // Copies bytes into a block of this process. Into a file they go by a system
    // call where that is cheaper than touching pages for the first time.
    void fill(void* block, const void* from, std::uint64_t nbytes) noexcept;

    // -- space --
    std::uint64_t trim() noexcept;  // gives all free pages back; bytes
    result<void> grow(std::uint64_t capacity);
    // Freed pages go back after `delay_ms` (-1: never by age, 0: at once), and
    // at once beyond `budget` bytes.
    void set_purge(std::int64_t delay_ms, std::uint64_t budget) noexcept;
    // For so long after its sender was found dead a message may be read.
    static constexpr std::uint64_t default_grace_ms = 60000;
    // Reaps dead processes, and tokens whose sender has been known to be gone
    // for `grace_ms`. Returns blocks freed and tokens dropped.
    std::uint64_t reclaim(std::uint64_t grace_ms = default_grace_ms) noexcept;

    // -- looking --
    statistics stats() noexcept;
    process_counts counts() noexcept;
    std::vector<std::string> check();
    std::vector<block_view> blocks();
    std::uint64_t live_blocks() noexcept;  // of this process
    std::uint64_t allocated_bytes() noexcept;
    std::uint64_t capacity() noexcept;
    // A new random number whenever the arena's state begins anew: what was there
    // before (another boot, another file of the same name) has another.
    std::uint64_t session() const noexcept { return seg_->control().session; }
    std::uint64_t alignment() const noexcept { return seg_->header().alignment; }
    const segment::segment& seg() const noexcept { return *seg_; }
    std::byte* base() const noexcept { return seg_->base(); }
    result<void> unlink() { return seg_->unlink(); }
    std::uint64_t deepest_undo() noexcept;

    // -- fork, called by the atfork handlers of the registry --
    void before_fork() noexcept;
    void after_fork_in_parent() noexcept;
    void after_fork_in_child() noexcept;

private:
    struct request {
        std::uint64_t nbytes;           // asked for
        std::uint64_t size;             // of the block
        std::uint64_t alignment;        // of the block
        std::uint32_t asked_alignment;  // 0: the arena's
        bool may_colour;                // the payload may start a few KiB into the block
    };
    struct found {
        bool ok = false;
        bool need_records = false;
        tlsf::placement place;
        std::uint64_t offset = 0;  // of the payload
        std::uint64_t serial = 0;
    };
    enum class refusal_cause : std::uint8_t {
        none,
        capacity,
        disk,
        memory,
        lock,
        poisoned,
        forked,
        read_only,
        size,
    };

    // lifecycle
    result<void> start(find_survivors survivors);
    result<void> reset(find_survivors survivors);
    result<std::vector<tlsf::kept_block>> merge_survivors(std::vector<survivor> survivors) const;
    result<void> format_volatile(const segment::root_page* root, std::vector<survivor> survivors);
    result<void> recover();
    void write_witness() noexcept;
    bool recover_operation() noexcept;

    // the slot lock; both return with the undo log empty. False: not to be had in
    // time, or a dead holder has left damage, and this process is poisoned.
    bool lock_shared(unsigned timeout_ms = segment::slot_lock::default_timeout_ms) noexcept;
    error not_locked() const;  // why it was refused
    void unlock_shared() noexcept;
    bool settle() noexcept;  // commits, or rolls back and poisons
    void poison(const char* why) noexcept;
    bool usable() noexcept;

    // allocation
    bool room_for_record() noexcept;
    found try_allocate(const request& wanted, std::uint64_t now, bool thorough) noexcept;
    int complete_holes(const found& f) noexcept;  // 0 or errno
    bool clear_holes(std::uint32_t record) noexcept;
    void abandon(const found& f) noexcept;
    std::uint64_t find_place(const request& wanted, found& f) noexcept;
    void release_record(std::uint32_t record, std::uint64_t payload_offset,
                        std::uint64_t now) noexcept;
    void release(map_entry* place, bool& due) noexcept;
    void drain_deferred(std::uint64_t now) noexcept;
    void drop_private_pages(const map_entry& entry) noexcept;
    void note_allocation(found& f, const request& wanted) noexcept;
    void enter(const found& f, const request& wanted) noexcept;
    void* reallocate_elsewhere(void* address, std::uint64_t old_bytes, std::uint64_t nbytes,
                               std::uint64_t alignment) noexcept;
    enum class resize_outcome : std::uint8_t { done, move, refused };
    resize_outcome resize_in_place(map_entry* wanted, std::uint64_t nbytes) noexcept;
    void* refuse(refusal_cause cause, std::uint64_t nbytes, int os_errno = 0) noexcept;

    // blocks kept for the next request of their size
    void* recycle(const request& wanted, bool zero) noexcept;
    bool keep(map_entry* entry, bool& due) noexcept;
    std::uint64_t shift_of(std::uint64_t key, std::uint64_t size) const noexcept;
    std::uint32_t recyclable_size(std::uint64_t key, std::uint64_t shift,
                                  std::uint64_t size) const noexcept;
    bool may_keep() noexcept;
    bool look_around() noexcept;
    void look_around_again(std::uint64_t now) noexcept;
    bool is_overdue(std::uint64_t now) noexcept;
    void give_back_kept(std::uint64_t now) noexcept;
    void return_kept() noexcept;
    void limit_kept() noexcept;
    bool publish(map_entry& entry) noexcept;
    void publish_locked(map_entry& entry) noexcept;

    // tables
    bool add_records() noexcept;
    bool add_table(std::uint64_t bytes, bool is_chunk) noexcept;

    // space
    refusal_cause make_room(const request& wanted, int& os_errno) noexcept;
    bool extend_to_fit(std::uint64_t size, std::uint64_t alignment, refusal_cause& cause,
                       int& os_errno) noexcept;
    std::uint64_t extension_step(std::uint64_t watermark) const noexcept;
    bool purge_due(std::uint64_t now) noexcept;
    std::uint64_t purge(std::uint64_t freed_before, std::uint64_t down_to, std::uint64_t at_most,
                        std::uint32_t& tried) noexcept;
    std::uint64_t purge_one(std::uint64_t freed_before, std::uint64_t down_to, bool tail,
                            std::uint32_t& tried) noexcept;
    std::uint32_t purge_if_due(bool due) noexcept;
    bool await_purge(std::uint32_t done_before, std::uint64_t& deadline) noexcept;
    int discard(std::uint64_t offset, std::uint64_t dirty) noexcept;

    // owners
    void hold(std::uint32_t record, tlsf::block_record& r) noexcept;
    bool unhold(std::uint32_t record, tlsf::block_record& r, std::uint32_t slot) noexcept;
    std::uint64_t reap_row(std::uint32_t slot) noexcept;
    bool row_is_empty(std::uint32_t slot) noexcept;
    std::uint64_t reap_dead() noexcept;
    std::uint64_t reap_now_and_then() noexcept;
    void take_over_locks_of(std::uint32_t slot) noexcept;
    std::uint64_t reap_dead_slots() noexcept NDARENA_REQUIRES(reaping_);

    // tokens
    error damaged() const;  // after an operation on tokens has poisoned the heap
    segment::transit_token& token_at(std::uint32_t index) const noexcept;
    std::uint32_t tokens_in_use() const noexcept;
    token issue_token(std::uint32_t record, std::uint32_t readers) noexcept;
    void retire_token(std::uint32_t index) noexcept;
    bool redeem(const block_id& id, const token& ticket) noexcept;
    void drop_hold(std::uint32_t record, std::uint64_t now) noexcept;
    std::uint64_t expire_tokens(std::uint64_t grace_ms) noexcept;
    void count_tokens(std::vector<std::uint32_t>& holders, std::vector<std::string>& findings);

    // names
    std::uint32_t record_at(std::uint64_t offset, std::uint32_t hint) noexcept;
    segment::name_ledger* ledger_in(std::uint32_t record) noexcept;
    void unname(std::uint32_t record, std::uint64_t now) noexcept;
    bool carry_out(bool watched) noexcept;
    bool release_step(std::uint64_t now) noexcept;
    error flush_failed(int os_errno) const;
    int barrier(std::uint64_t begin, std::uint64_t end) noexcept;
    result<void> flush_alone();

    // fork
    void claim_for_child() noexcept;
    void privatise_in_child() noexcept;
    void share_page(std::uint64_t offset, std::uint64_t size) noexcept;
    heap* successor() noexcept;
    heap* next() const noexcept { return next_.load(std::memory_order_acquire); }

    void note_refused() noexcept;
    bool state_is_void() const noexcept;
    void check_rows(std::vector<std::string>& findings);
    bool read_steadily(void (*read)(heap&, void*), void* argument);

    std::shared_ptr<void> keep_alive_;  // a buffer's owner; destroyed after all else
    std::unique_ptr<segment::segment> seg_;
    platform::mapped_region cache_;  // chunk offsets, 8 bytes each
    tlsf::block_table table_;
    tlsf::allocator tlsf_;
    segment::slot_lock lock_;
    segment::slot_lock commit_lock_;
    segment::slot_lock flush_lock_;
    segment::slot_lock directory_lock_;
    platform::mutex mutex_;
    platform::mutex reaping_;   // one thread reaps; taken before mutex_
    platform::mutex tables_;    // one thread adds tables; taken before mutex_
    platform::mutex flushing_;  // one thread flushes; taken before mutex_

    pointer_map map_;
    recycler kept_;  // blocks that this process alone knows to be free
    // Whether anybody else had the segment open for writing, and how often a slot
    // had been claimed, when it was last asked; the clock, ms, then.
    bool alone_ = false;
    std::uint64_t claims_seen_ = ~std::uint64_t{0};
    std::uint64_t looked_around_ = 0;
    std::uint32_t kept_since_look_ = 0;
    std::uint32_t stamp_ = 0;  // the clock, ms, when something was last given back
    // Blocks that names held when first asked: payload offset and record, sorted.
    std::vector<std::pair<std::uint64_t, std::uint32_t>> named_;
    bool named_known_ = false;
    bool name_is_synced_ = false;      // the file's own directory entry is stored
    std::vector<map_entry> deferred_;  // frees that found the lock taken
    std::uint32_t next_colour_ = 0;
    std::int64_t purge_delay_ms_ = 2000;
    std::uint64_t purge_budget_ = 0;
    bool memory_backed_ = false;
    std::atomic<bool> can_purge_{true};
    std::atomic<std::uint64_t> last_reap_{0};
    // Blocks that this process has begun, and ended, to give back: meanwhile they
    // are on no list, though as good as free. Counted under mutex_.
    std::atomic<std::uint32_t> purges_begun_{0};
    std::atomic<std::uint32_t> purges_done_{0};
    bool started_ = false;  // what was opened is sound, as far as known
    std::atomic<bool> forgoes_flush_{false};
    std::atomic<void*> companion_{nullptr};
    void (*destroy_companion_)(void*) noexcept = nullptr;
    std::atomic<bool> poisoned_{false};
    std::atomic<const char*> poison_cause_{""};  // the latest; a string literal

    struct refused_request {
        std::atomic<refusal_cause> cause{refusal_cause::none};
        std::atomic<std::uint64_t> nbytes{0};
        std::atomic<int> os_errno{0};
        void store_cause(refusal_cause why, std::uint64_t asked, int err) noexcept {
            nbytes.store(asked, std::memory_order_relaxed);
            os_errno.store(err, std::memory_order_relaxed);
            cause.store(why, std::memory_order_relaxed);
        }
    } refused_;
    std::atomic<std::uint64_t> n_refused_{0};

    // fork
    bool fork_live_ = false;  // the handlers before the fork did their part
    segment::segment::claimed_slot child_slot_;
    std::vector<platform::byte_range> fork_ranges_;
    int fork_pipe_[2] = {-1, -1};
    bool inherited_ = false;  // fork child of a private arena: blocks are kept, none are made
    std::shared_ptr<heap> successor_;  // set once, read through next_
    std::atomic<heap*> next_{nullptr};
    friend class registry;
    friend struct process_of_its_own;  // of the fuzz targets
};

}  // namespace ndarena::heap
