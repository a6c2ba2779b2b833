// The second opinion of the target `operations`: which blocks there are, by
// offset, and what is in them.
#pragma once

#include "heap/heap.hpp"

#include "input.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <string>

namespace ndarena::fuzz {

struct block {
    std::byte* p;
    std::uint64_t size;  // asked for, at least 1
    std::uint64_t alignment;
    std::uint64_t seed;
    std::size_t owner;  // which heap gave it out
};

// Bytes that depend on the seed and on the place in the block. Of large blocks
// both ends and a line of every page are written: whatever the library clears
// or moves by mistake has at least the size of a page or reaches an end.
class contents {
public:
    static void write(const block& b) {
        for_each_part(b.size, [&](std::uint64_t at, std::uint64_t n) {
            std::memcpy(b.p + at, expected(b.seed, at), n);
        });
    }
    static bool are_kept(const block& b, std::uint64_t upto) {
        bool same = true;
        for_each_part(b.size, [&](std::uint64_t at, std::uint64_t n) {
            const std::uint64_t end = std::min(at + n, upto);
            same =
                same && (end <= at || std::memcmp(b.p + at, expected(b.seed, at), end - at) == 0);
        });
        return same;
    }
    static bool are_zero(const std::byte* p, std::uint64_t size) {
        return size == 0 || (p[0] == std::byte{0} && std::memcmp(p, p + 1, size - 1) == 0);
    }

private:
    static constexpr std::uint64_t page = 4096;
    static constexpr std::uint64_t line = 64;

    template <class F>
    static void for_each_part(std::uint64_t size, F&& f) {
        if (size <= 4 * page) {
            for (std::uint64_t at = 0; at < size; at += page) {
                f(at, std::min(page, size - at));
            }
            return;
        }
        f(0, page);
        for (std::uint64_t at = page; at + page <= size - page; at += page) {
            f(at, line);
        }
        f(size - page, page);
    }
    // A page of bytes none of which is zero, turned by the seed and the place.
    static const std::byte* expected(std::uint64_t seed, std::uint64_t at) {
        static constexpr std::uint64_t turns = 251;
        static const auto pattern = [] {
            std::array<std::byte, page + turns> bytes{};
            for (std::size_t i = 0; i < bytes.size(); ++i) {
                bytes[i] = static_cast<std::byte>(1 + i % turns);
            }
            return bytes;
        }();
        return pattern.data() + (seed * 17 + at / page) % turns;
    }
};

class model {
public:
    std::map<std::uint64_t, block>& blocks() { return blocks_; }
    bool is_empty() const { return blocks_.empty(); }
    std::uint64_t count() const { return blocks_.size(); }
    std::uint64_t count_of(std::size_t owner) const {
        return static_cast<std::uint64_t>(
            std::count_if(blocks_.begin(), blocks_.end(),
                          [&](const auto& entry) { return entry.second.owner == owner; }));
    }
    std::uint64_t bytes() const {
        std::uint64_t sum = 0;
        for (const auto& [offset, b] : blocks_) {
            sum += b.size;
        }
        return sum;
    }

    // A block that the library has just handed out.
    void add(std::uint64_t offset, const block& b) {
        const std::string where =
            "at " + std::to_string(offset) + ", size " + std::to_string(b.size);
        const auto next = blocks_.lower_bound(offset);
        require(next == blocks_.end() || offset + b.size <= next->first, "blocks are apart", where);
        require(next == blocks_.begin() ||
                    std::prev(next)->first + std::prev(next)->second.size <= offset,
                "blocks are apart", where);
        require(reinterpret_cast<std::uintptr_t>(b.p) % b.alignment == 0, "blocks are aligned",
                where);
        blocks_[offset] = b;
    }
    std::map<std::uint64_t, block>::iterator pick(std::uint64_t choice) {
        return std::next(blocks_.begin(), static_cast<std::ptrdiff_t>(choice % blocks_.size()));
    }
    void verify() const {
        for (const auto& [offset, b] : blocks_) {
            require(contents::are_kept(b, b.size), "a block keeps its contents",
                    "at " + std::to_string(offset));
        }
    }

private:
    std::map<std::uint64_t, block> blocks_;
};

}  // namespace ndarena::fuzz
