#include "directory/draft.hpp"

#include <cassert>

namespace ndarena::directory {

std::uint64_t draft::keys() const noexcept {
    if (is_leaf()) {
        return count;
    }
    std::uint64_t sum = 0;
    for (unsigned i = 0; i < count; ++i) {
        sum += view().child_keys(i);
    }
    return sum;
}

void draft::take_over(node_ref where) {
    const auto h = load<node_header>(bytes.data());
    level = h.level;
    count = h.count;
    used = h.used - header_bytes;
    stored = where;
    if (!is_leaf()) {
        children.resize(count);
    }
}

void draft::clear(unsigned its_level) {
    level = its_level;
    count = 0;
    used = 0;
    floor = body_end;
}

void draft::repack() noexcept {
    const page before = bytes;
    const entries from(before.data(), level, count);
    floor = body_end;
    for (unsigned i = 0; i < count; ++i) {
        const std::size_t size = from.entry_bytes(i);
        floor -= size;
        std::memcpy(&bytes[floor], from.entry(i), size);
        save(&bytes[header_bytes + slot_bytes * i], static_cast<std::uint16_t>(floor));
    }
}

std::byte* draft::make_entry(unsigned at, std::size_t size) noexcept {
    assert(fits(size) && at <= count);
    if (floor < header_bytes + slot_bytes * (count + 1) + size) {
        repack();
    }
    std::byte* slot = &bytes[header_bytes + slot_bytes * at];
    std::memmove(slot + slot_bytes, slot, slot_bytes * (count - at));
    floor -= size;
    save(slot, static_cast<std::uint16_t>(floor));
    ++count;
    used += slot_bytes + size;
    next_insert = at + 1;
    return &bytes[floor];
}

void draft::remove_entry(unsigned at) noexcept {
    used -= slot_bytes + view().entry_bytes(at);
    --count;
    std::byte* slot = &bytes[header_bytes + slot_bytes * at];
    std::memmove(slot, slot + slot_bytes, slot_bytes * (count - at));
    next_insert = 0;
}

void draft::truncate(unsigned left) noexcept {
    for (unsigned i = left; i < count; ++i) {
        used -= slot_bytes + view().entry_bytes(i);
    }
    count = left;
    next_insert = 0;
}

void draft::set_child(unsigned at, node_ref where, std::uint64_t below) noexcept {
    std::byte* e = entry(at);
    save(e + 2, where.record);
    save(e + 6, where.offset);
    save(e + 14, below);
}

void draft::remove_child(unsigned at) noexcept {
    remove_entry(at);
    children.erase(children.begin() + at);
    if (at == 0 && count > 0) {
        const node_ref where = view().child(0);
        const std::uint64_t below = view().child_keys(0);
        remove_entry(0);
        put_inner_entry(make_entry(0, inner_head), {}, where, below);
    }
}

}  // namespace ndarena::directory
