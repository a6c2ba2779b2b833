// A node in process memory: as it was read until it is touched, then with its
// entries in any order between the slots and the end, so that one comes or goes
// without moving the others.
#pragma once

#include "directory/node.hpp"

#include <memory>
#include <vector>

namespace ndarena::directory {

// The page of a new one is filled by whoever makes it.
struct draft {  // NOLINT(cppcoreguidelines-pro-type-member-init)
    unsigned level = 0;
    unsigned count = 0;
    std::size_t used = 0;   // bytes of slots and entries
    std::size_t floor = 0;  // the lowest byte of an entry, once touched
    bool dirty = false;
    unsigned next_insert = 0;                      // behind the newest entry; 0: unknown
    node_ref stored;                               // where it was read from, while it is clean
    std::vector<std::unique_ptr<draft>> children;  // inner nodes; null: as stored
    page bytes;

    entries view() const noexcept { return {bytes.data(), level, count}; }
    bool is_leaf() const noexcept { return level == 0; }
    bool fits(std::size_t size) const noexcept { return used + slot_bytes + size <= body_bytes; }
    // So small that it should be merged with a neighbour.
    bool is_underfull() const noexcept { return used < body_bytes * 2 / 5; }
    std::uint64_t keys() const noexcept;

    // Takes over a page that check_node has accepted.
    void take_over(node_ref where);
    // Makes it an empty node.
    void clear(unsigned its_level);
    // Moves the entries to the end of the page.
    void repack() noexcept;

    // Room for an entry that fits, before entry `at`. The caller fills it.
    std::byte* make_entry(unsigned at, std::size_t size) noexcept;
    void remove_entry(unsigned at) noexcept;
    // Keeps the first `left` entries.
    void truncate(unsigned left) noexcept;
    // Inner nodes: writes place and number of keys of a child.
    void set_child(unsigned at, node_ref where, std::uint64_t below) noexcept;
    // Inner nodes: the child with its entry. The next one becomes the first if it was.
    void remove_child(unsigned at) noexcept;
    std::byte* entry(unsigned at) noexcept {
        return bytes.data() + (view().entry(at) - bytes.data());
    }
};

}  // namespace ndarena::directory
