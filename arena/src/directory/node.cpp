#include "directory/node.hpp"

#include <algorithm>

namespace ndarena::directory {
namespace {

// The first eight bytes of the key at `at` as a number that orders like them;
// short keys are filled up with zeros, so equal numbers say nothing.
std::uint64_t leading_bytes(const page& copy, std::size_t at, std::size_t size) noexcept {
    std::uint64_t number = 0;
    if (at + sizeof number > node_bytes) {
        std::memcpy(&number, copy.data() + at, size);
        return __builtin_bswap64(number);
    }
    number = __builtin_bswap64(load<std::uint64_t>(copy.data() + at));
    return size >= sizeof number ? number : number & ~(~std::uint64_t{0} >> (8 * size));
}

const char* check_header(const node_header& h, const identity& id, node_ref where) noexcept {
    if (h.magic != node_magic) {
        return "is not a node";
    }
    if (h.uuid != id.uuid) {
        return "belongs to another arena";
    }
    if (h.offset != where.offset) {
        return "belongs to another place";
    }
    if (h.level >= max_depth) {
        return "is too high above the leaves";
    }
    if (h.count == 0 || h.count > most_entries) {
        return "has an impossible number of entries";
    }
    return nullptr;
}

// Slots, entries and order. `keys` becomes the number of keys below the node.
// Each entry has to end where the next slot points to, so that no step of the
// loop waits for the one before.
const char* check_entries(const page& copy, const node_header& h, std::uint64_t& keys) noexcept {
    const bool leaf = h.level == 0;
    const std::size_t head = leaf ? leaf_head : inner_head;
    const auto slot = [&](unsigned i) -> std::size_t {
        return load<std::uint16_t>(&copy[header_bytes + slot_bytes * i]);
    };
    if (slot(0) != header_bytes + slot_bytes * h.count || h.used > body_end) {
        return "has a wrong slot";
    }
    std::string_view previous;
    std::uint64_t previous_leading = 0;
    keys = leaf ? h.count : 0;
    for (unsigned i = 0; i < h.count; ++i) {
        const std::size_t at = slot(i);
        const std::size_t end = i + 1 < h.count ? slot(i + 1) : h.used;
        if (at + head > body_end) {
            return "has a wrong slot";
        }
        const std::byte* e = &copy[at];
        const std::size_t key_bytes = load<std::uint16_t>(e);
        const std::size_t value_bytes = leaf ? load<std::uint16_t>(e + 2) : 0;
        const bool has_key = leaf || i > 0;
        if ((key_bytes != 0) != has_key || key_bytes > max_key_bytes ||
            value_bytes > max_value_bytes || end > body_end ||
            at + head + key_bytes + value_bytes != end) {
            return "has an entry of impossible length";
        }
        const std::string_view key = text(e + head, key_bytes);
        const std::uint64_t leading = leading_bytes(copy, at + head, key_bytes);
        if (i > 0 &&
            (leading < previous_leading || (leading == previous_leading && key <= previous))) {
            return "has keys out of order";
        }
        previous = key;
        previous_leading = leading;
        if (!leaf) {
            const auto below = load<std::uint64_t>(e + 14);
            if (load<std::uint64_t>(e + 6) == 0 || below == 0 || keys + below < keys) {
                return "has an impossible child";
            }
            keys += below;
        }
    }
    return nullptr;
}

}  // namespace

error damaged(node_ref where, const char* what) {
    return {
        errc::corruption, 0,
        "the names are damaged: the node at offset " + std::to_string(where.offset) + " " + what,
        ""};
}

// Short enough to need no memory itself.
error out_of_memory() { return {errc::no_memory, 0, "out of memory", ""}; }

bool entries::within(std::string_view low, std::string_view high) const noexcept {
    const unsigned first = is_leaf() ? 0 : 1;
    if (first == count_) {
        return true;
    }
    // A separator that equals the lower bound would leave nothing to its left.
    const int above = key(first).compare(low);
    return (is_leaf() ? above >= 0 : above > 0) && (high.empty() || key(count_ - 1) < high);
}

void put_leaf_entry(std::byte* to, std::string_view key, std::string_view value) noexcept {
    save(to, static_cast<std::uint16_t>(key.size()));
    save(to + 2, static_cast<std::uint16_t>(value.size()));
    std::memcpy(to + leaf_head, key.data(), key.size());
    if (!value.empty()) {
        std::memcpy(to + leaf_head + key.size(), value.data(), value.size());
    }
}

void put_inner_entry(std::byte* to, std::string_view separator, node_ref child,
                     std::uint64_t keys) noexcept {
    save(to, static_cast<std::uint16_t>(separator.size()));
    save(to + 2, child.record);
    save(to + 6, child.offset);
    save(to + 14, keys);
    if (!separator.empty()) {
        std::memcpy(to + inner_head, separator.data(), separator.size());
    }
}

result<void> check_node(const page& copy, const identity& id, node_ref where) {
    const auto h = load<node_header>(copy.data());
    const char* what = check_header(h, id, where);
    if (what == nullptr &&
        base::crc32c(copy.data(), body_end) != load<std::uint32_t>(&copy[body_end])) {
        what = "has a wrong checksum";
    }
    if (what == nullptr) {
        std::uint64_t keys = 0;
        what = check_entries(copy, h, keys);
        if (what == nullptr && keys != h.keys) {
            what = "has another number of keys than it says";
        }
    }
    if (what != nullptr) {
        return damaged(where, what);
    }
    return {};
}

result<void> read_node(node_source& source, const identity& id, node_ref where,
                       const expectation* expected, page& into) {
    if (auto done = source.read(where, into); !done) {
        return done;
    }
    if (auto done = check_node(into, id, where); !done) {
        return done;
    }
    if (expected != nullptr) {
        if (load<std::uint8_t>(&into[offsetof(node_header, level)]) != expected->level) {
            return damaged(where, "is not on the level below its parent");
        }
        if (load<std::uint64_t>(&into[offsetof(node_header, keys)]) != expected->keys) {
            return damaged(where, "has another number of keys than its parent says");
        }
    }
    return {};
}

void encode_node(page& into, const identity& id, node_ref where, unsigned level, std::uint64_t keys,
                 const entries& from) noexcept {
    std::size_t at = header_bytes + slot_bytes * from.count();
    for (unsigned i = 0; i < from.count(); ++i) {
        const std::size_t size = from.entry_bytes(i);
        save(&into[header_bytes + slot_bytes * i], static_cast<std::uint16_t>(at));
        std::memcpy(&into[at], from.entry(i), size);
        at += size;
    }
    std::memset(into.data() + at, 0, body_end - at);
    node_header h{};
    h.magic = node_magic;
    h.uuid = id.uuid;
    h.offset = where.offset;
    h.keys = keys;
    h.level = static_cast<std::uint8_t>(level);
    h.count = static_cast<std::uint16_t>(from.count());
    h.used = static_cast<std::uint16_t>(at);
    save(into.data(), h);
    save(&into[body_end], base::crc32c(into.data(), body_end));
}

}  // namespace ndarena::directory
