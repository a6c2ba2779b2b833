// Deliberate mistakes, one at a time, that the fault campaigns have to find:
// a build with NDARENA_PLANTED_BUG=name has the one of that name. Never set
// but by `nox -s kill`; unset, the questions cost nothing.
#pragma once

#ifndef NDARENA_PLANTED_BUG
#define NDARENA_PLANTED_BUG none
#endif

namespace ndarena::base {

enum class bug {
    none,
    count_before_entry,    // the undo log's count rises before its entry is whole
    commit_first,          // the log is cleared as the first line of an operation is noted
    log_cleared_first,     // playing back clears the log before it writes
    row_not_noted,         // ownership bits change without a note
    free_links_not_noted,  // so do the links of free lists
    split_not_noted,       // so does a block that another is carved out of
    no_take_over,          // whoever claims a dead process's slot leaves its lock as it was
    holes_unmarked,        // punched pages are not marked, and handed out as committed
    token_not_noted,       // a token is taken over without a note
    flush_one_barrier,     // the root page is written before what it leads to is stored
    flush_async,           // flushing begins to write, and does not wait
    reuse_before_flush,    // what the stored root leads to is reused as soon as it is dropped
};

constexpr bool planted(bug b) noexcept { return b == bug::NDARENA_PLANTED_BUG; }

}  // namespace ndarena::base
