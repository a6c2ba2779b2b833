// The bytes of a node. docs/design/format.md, section "Names", specifies them;
// this file and it change together.
//
// Header, table of slots, entries, zeros, checksum. Slot i is the position in
// the page of the entry with the i-th key. The entries lie in the same order,
// the first one right behind the slots, without gaps. In an inner node key i is
// the separator of child i: no key below the child is less, and none as great
// as the next separator. The first separator is empty: the parent knows it.
#pragma once

#include "directory/tree.hpp"

#include <cstring>

namespace ndarena::directory {

constexpr std::array<char, 8> node_magic = {'N', 'D', 'A', 'N', 'O', 'D', 'E', '\x1a'};

struct node_header {
    std::array<char, 8> magic;
    std::array<std::uint8_t, 16> uuid;
    std::uint64_t offset;  // of this node
    std::uint64_t keys;    // in the leaves below it
    std::uint8_t level;    // 0: leaf
    std::uint8_t reserved0;
    std::uint16_t count;  // entries
    std::uint16_t used;   // where the entries end
    std::array<std::uint8_t, 18> reserved1;
};
constexpr std::size_t header_bytes = 64;
static_assert(sizeof(node_header) == header_bytes);
static_assert(offsetof(node_header, offset) == 24);
static_assert(offsetof(node_header, keys) == 32);
static_assert(offsetof(node_header, level) == 40);
static_assert(offsetof(node_header, count) == 42);
static_assert(offsetof(node_header, used) == 44);

constexpr std::size_t body_end = node_bytes - 4;  // the checksum of all bytes before it
constexpr std::size_t body_bytes = body_end - header_bytes;
constexpr std::size_t slot_bytes = 2;

// Leaf entry: key length u16, value length u16, key, value.
constexpr std::size_t leaf_head = 4;
// Inner entry: key length u16, child's record u32, offset u64, keys u64, key.
constexpr std::size_t inner_head = 22;
constexpr std::size_t most_entries = body_bytes / (slot_bytes + leaf_head);
constexpr std::size_t max_entry_bytes = leaf_head + max_key_bytes + max_value_bytes;
static_assert(3 * (max_entry_bytes + slot_bytes) <= body_bytes);
static_assert(3 * (inner_head + max_key_bytes + slot_bytes) <= body_bytes);

template <class T>
T load(const std::byte* p) noexcept {
    T value{};
    std::memcpy(&value, p, sizeof value);
    return value;
}
template <class T>
void save(std::byte* p, T value) noexcept {
    std::memcpy(p, &value, sizeof value);
}

inline std::string_view text(const std::byte* p, std::size_t size) noexcept {
    return {reinterpret_cast<const char*>(p), size};
}

// The entries of a page that `check_node` has accepted, or of a draft.
class entries {
public:
    entries(const std::byte* bytes, unsigned level, unsigned count) noexcept
        : bytes_(bytes), head_(level == 0 ? leaf_head : inner_head), count_(count) {}
    explicit entries(const page& checked) noexcept
        : entries(checked.data(), load<std::uint8_t>(&checked[offsetof(node_header, level)]),
                  load<std::uint16_t>(&checked[offsetof(node_header, count)])) {}

    unsigned count() const noexcept { return count_; }
    bool is_leaf() const noexcept { return head_ == leaf_head; }

    const std::byte* entry(unsigned i) const noexcept {
        return bytes_ + load<std::uint16_t>(bytes_ + header_bytes + slot_bytes * i);
    }
    std::size_t entry_bytes(unsigned i) const noexcept {
        const std::byte* e = entry(i);
        return head_ + load<std::uint16_t>(e) + (is_leaf() ? load<std::uint16_t>(e + 2) : 0U);
    }
    std::string_view key(unsigned i) const noexcept {
        const std::byte* e = entry(i);
        return text(e + head_, load<std::uint16_t>(e));
    }
    std::string_view value(unsigned i) const noexcept {
        const std::byte* e = entry(i);
        return text(e + leaf_head + load<std::uint16_t>(e), load<std::uint16_t>(e + 2));
    }
    node_ref child(unsigned i) const noexcept {
        const std::byte* e = entry(i);
        return {load<std::uint64_t>(e + 6), load<std::uint32_t>(e + 2)};
    }
    std::uint64_t child_keys(unsigned i) const noexcept {
        return load<std::uint64_t>(entry(i) + 14);
    }

    // Index of the first entry, from `first` on, whose key is not less.
    unsigned lower_bound(std::string_view wanted, unsigned first = 0) const noexcept {
        unsigned last = count_;
        while (first < last) {
            const unsigned middle = (first + last) / 2;
            if (key(middle).compare(wanted) < 0) {
                first = middle + 1;
            } else {
                last = middle;
            }
        }
        return first;
    }
    bool has(unsigned i, std::string_view wanted) const noexcept {
        return i < count_ && key(i) == wanted;
    }
    // Inner nodes: the child below which the key belongs.
    unsigned child_for(std::string_view wanted) const noexcept {
        const unsigned i = lower_bound(wanted, 1);
        return has(i, wanted) ? i : i - 1;
    }
    // Whether all keys are at least `low` and less than `high`; empty: no bound.
    bool within(std::string_view low, std::string_view high) const noexcept;

private:
    const std::byte* bytes_;
    std::size_t head_;
    unsigned count_;
};

void put_leaf_entry(std::byte* to, std::string_view key, std::string_view value) noexcept;
void put_inner_entry(std::byte* to, std::string_view separator, node_ref child,
                     std::uint64_t keys) noexcept;

// What a parent says about a child.
struct expectation {
    unsigned level;
    std::uint64_t keys;
};

error damaged(node_ref where, const char* what);
error out_of_memory();

// Judges a copied page by itself.
result<void> check_node(const page& copy, const identity& id, node_ref where);
// Copies and judges; `expected` is null for a root.
result<void> read_node(node_source& source, const identity& id, node_ref where,
                       const expectation* expected, page& into);

// Fills a page with the entries.
void encode_node(page& into, const identity& id, node_ref where, unsigned level, std::uint64_t keys,
                 const entries& from) noexcept;

// What tree_view does, for the part of a tree below a stored node.
result<bool> find_stored(node_source& source, const identity& id, node_ref where,
                         const expectation* expected, std::string_view key, std::string& value,
                         known_nodes* known = nullptr);
result<void> scan_stored(node_source& source, const identity& id, node_ref where,
                         const expectation* expected, std::string_view low, std::string_view high,
                         std::string_view from, const scan_function& f, bool& go_on);

}  // namespace ndarena::directory
