// Where the nodes of the target `directory` lie: a map of pages whose reads and
// blocks run out on order, and how they are damaged.
#pragma once

#include "directory/known_nodes.hpp"
#include "directory/node.hpp"

#include "input.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace ndarena::fuzz {

using directory::node_ref;
using directory::page;
using model_map = std::map<std::string, std::string>;

constexpr std::uint64_t never = ~std::uint64_t{0};

inline directory::identity fuzz_identity() {
    directory::identity id;
    id.uuid.fill(0x5F);
    return id;
}

class node_pages final : public directory::node_source {
public:
    node_pages() = default;

    result<void> read(node_ref where, page& into) override {
        if (reads_left == 0) {
            return error{errc::os, 5, "no read", ""};
        }
        reads_left -= reads_left == never ? 0 : 1;
        const auto found = pages.find(where.offset);
        if (found == pages.end()) {
            return error{errc::corruption, 0, "no page", ""};
        }
        into = found->second;
        return {};
    }
    const std::byte* in_place(node_ref where) noexcept override {
        const auto found = pages.find(where.offset);
        return found == pages.end() ? nullptr : found->second.data();
    }
    result<std::pair<node_ref, std::byte*>> place() {
        if (places_left == 0) {
            return error{errc::no_memory, 0, "no place", ""};
        }
        places_left -= places_left == never ? 0 : 1;
        std::uint64_t at = next_;
        if (unused_.empty()) {
            next_ += directory::node_bytes;
        } else {
            at = unused_.back();
            unused_.pop_back();
        }
        page& fresh = pages[at];
        fresh.fill(std::byte{0xEE});
        return std::pair<node_ref, std::byte*>{{at, 7}, fresh.data()};
    }
    void free(std::uint64_t offset) {
        require(pages.erase(offset) == 1, "a node is retired once");
        unused_.push_back(offset);
    }
    // Takes the place of all pages.
    void put(const std::map<std::uint64_t, page>& other) {
        pages = other;
        unused_.clear();
        next_ = other.empty() ? first : other.rbegin()->first + directory::node_bytes;
    }

    static constexpr std::uint64_t first = std::uint64_t{1} << 16;
    std::map<std::uint64_t, page> pages;
    std::uint64_t reads_left = never;
    std::uint64_t places_left = never;

private:
    std::vector<std::uint64_t> unused_;
    std::uint64_t next_ = first;
};

// Edits aimed at what a node says of itself, so that a few bytes of input reach
// every field of every node.
class damaged_nodes {
public:
    explicit damaged_nodes(node_pages& source) : source_(source) {}

    // Which node, where in it, with what.
    void edit(input& in, bool sign) {
        for (int i = 0; i < most_edits && !in.is_empty(); ++i) {
            page& node = pick(in.byte());
            const std::uint64_t choice = in.byte();
            const std::size_t width = std::size_t{1} << (choice & 3U);
            const std::size_t at = position(node, choice >> 2 & 7U, in);
            if (choice >> 5 == 7) {  // another node's bytes with this one's name
                const auto offset = directory::load<std::uint64_t>(&node[24]);
                node = pick(in.byte());
                directory::save(&node[24], offset);
            } else if (at + width <= directory::node_bytes) {
                std::uint64_t value = 0;
                std::memcpy(&value, &node[at], width);
                switch (choice >> 5) {
                    case 0:
                    case 1:
                        value = in.number(width);
                        break;
                    case 2:
                        value += in.byte() - 128;
                        break;
                    default:
                        value = interesting(in.byte());
                        break;
                }
                std::memcpy(&node[at], &value, width);
            }
            if (sign) {
                directory::save(&node[directory::body_end],
                                base::crc32c(node.data(), directory::body_end));
            }
        }
    }

private:
    static constexpr int most_edits = 16;

    page& pick(std::uint64_t choice) {
        return std::next(source_.pages.begin(),
                         static_cast<std::ptrdiff_t>(choice % source_.pages.size()))
            ->second;
    }
    static std::size_t position(const page& node, std::uint64_t region, input& in) {
        const std::size_t count = directory::load<std::uint16_t>(&node[42]) % 700U + 1U;
        switch (region) {
            case 0:
                return 24 + in.byte() % 22;  // header
            case 1:
                return 0 + in.byte() % 64;
            case 2:
                return 64 + 2 * (in.byte() % count);  // slot
            case 3:
            case 4:
            case 5: {  // head of an entry, or the first bytes of its key
                const std::size_t slot = 64 + 2 * (in.byte() % count);
                return directory::load<std::uint16_t>(&node[slot]) % directory::body_end +
                       in.byte() % 32;
            }
            case 6:
                return directory::body_end;
            default:
                return in.number(2) % directory::node_bytes;
        }
    }
    std::uint64_t interesting(std::uint64_t choice) {
        const std::uint64_t words[] = {
            0,    1,    2,    3,    23,   24,     64,     255,    256,        257,   1024,
            1025, 4088, 4091, 4092, 4096, 0x7FFF, 0x8000, 0xFFFF, 0xFFFFFFFF, never, never - 1};
        if (choice < 128) {
            return words[choice % std::size(words)];
        }
        return std::next(source_.pages.begin(),
                         static_cast<std::ptrdiff_t>(choice % source_.pages.size()))
            ->first;
    }

    node_pages& source_;
};

}  // namespace ndarena::fuzz
