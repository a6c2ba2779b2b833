// The second opinion of the target `sharing`: which blocks there are, and who
// holds them.
#pragma once

#include "model.hpp"

#include <array>
#include <map>
#include <vector>

namespace ndarena::fuzz {

constexpr std::size_t most_processes = 3;

// A block and its holders. It lives while a process has a reference or a
// message is on its way; while only the dead have it, it may be there or not.
struct shared_block {
    ndarena::heap::block_id id;
    std::uint64_t size = 0;
    std::uint64_t seed = 0;
    std::array<unsigned, most_processes> references{};
    unsigned messages = 0;
    unsigned dead = 0;

    bool is_held() const {
        return messages != 0 ||
               std::any_of(references.begin(), references.end(), [](unsigned n) { return n != 0; });
    }
    bool is_gone() const { return !is_held() && dead == 0; }
};

struct message {
    ndarena::heap::block_id id;
    ndarena::heap::token ticket;
    unsigned readers = 0;      // that its token still serves; 0: the token is gone
    std::uint64_t sender = 0;  // a number that no two lives have in common
};

class holders {
public:
    using map = std::map<std::uint64_t, shared_block>;  // by serial
    using place = map::iterator;

    map blocks;
    std::vector<message> messages;

    place find(std::uint64_t serial) { return blocks.find(serial); }
    place none() { return blocks.end(); }
    // Those that `p` holds, by choice.
    place pick(std::size_t p, std::uint64_t choice) {
        std::vector<place> held;
        for (auto it = blocks.begin(); it != blocks.end(); ++it) {
            if (it->second.references[p] != 0) {
                held.push_back(it);
            }
        }
        return held.empty() ? none() : held[choice % held.size()];
    }
    void drop_if_gone(place it) {
        if (it->second.is_gone()) {
            blocks.erase(it);
        }
    }
    // A block that a process has just been given: of what lay there only the dead
    // can have been holders.
    void add(const shared_block& b) {
        for (auto it = blocks.begin(); it != blocks.end();) {
            const shared_block& other = it->second;
            const bool apart = b.id.offset + b.size <= other.id.offset ||
                               other.id.offset + other.size <= b.id.offset;
            require(apart || !other.is_held(), "what somebody holds is not given out again");
            it = apart ? std::next(it) : blocks.erase(it);
        }
        require(blocks.emplace(b.id.serial, b).second, "serials are never used again");
    }
    void left_by(std::size_t p, bool by_death) {
        for_each([&](shared_block& b) {
            b.dead += by_death && b.references[p] != 0 ? 1U : 0U;
            b.references[p] = 0;
        });
    }
    // Nothing is held by the dead any more.
    void reaped() {
        for_each([](shared_block& b) { b.dead = 0; });
    }
    // Nor by their messages.
    template <class Lives>
    void dropped_unless(Lives&& lives) {
        for (message& m : messages) {
            const auto it = find(m.id.serial);
            if (m.readers != 0 && !lives(m.sender) && it != none()) {
                m.readers = 0;
                --it->second.messages;
                drop_if_gone(it);
            }
        }
    }
    std::uint64_t flying() const {
        return static_cast<std::uint64_t>(std::count_if(
            messages.begin(), messages.end(), [](const message& m) { return m.readers != 0; }));
    }

private:
    template <class F>
    void for_each(F&& f) {
        for (auto it = blocks.begin(); it != blocks.end();) {
            const auto next = std::next(it);
            f(it->second);
            drop_if_gone(it);
            it = next;
        }
    }
};

}  // namespace ndarena::fuzz
