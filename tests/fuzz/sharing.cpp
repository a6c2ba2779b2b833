// Fuzz target: several processes on one arena that send each other blocks, let
// go of them and die, against a model of who holds what.
//
// Each byte is an operation, with its arguments after it. Checked are the
// promises of sharing: what somebody holds keeps its place and its content, a
// message holds its block until it is read, what is gone is stale and never
// something else, what the dead held alone is free again once it was looked for.
#include "holders.hpp"
#include "processes.hpp"

#include <memory>

namespace ndarena::fuzz {
namespace {

using ndarena::heap::heap;
using ndarena::heap::process_of_its_own;
using segment::open_mode;

constexpr std::uint64_t capacity = std::uint64_t{512} << 10;
constexpr std::size_t most_blocks = 200;
constexpr std::size_t most_messages = 300;
constexpr unsigned most_operations = 1000;

class session {
public:
    explicit session(input in) : in_(in) {
        auto made = unnamed_arena::create(capacity);
        file_ = std::make_unique<memory_file>(std::move(made.file));
        made.h.reset();
        lasting_ = platform::instance_of(file_->fd()).mount != 0;
        join(0);
        join(1);
    }

    void run() {
        for (unsigned i = 0; !in_.is_empty() && i < most_operations; ++i) {
            step();
            if (i % 16 == 15) {
                inspect();
            }
        }
        inspect();
        finish();
    }

private:
    bool is_alive(std::size_t p) const { return processes_[p] != nullptr; }
    std::size_t live_count() const {
        return static_cast<std::size_t>(std::count_if(processes_.begin(), processes_.end(),
                                                      [](const auto& h) { return h != nullptr; }));
    }
    // One that is alive; there is at least one.
    std::size_t pick_process() {
        std::size_t p = in_.byte() % most_processes;
        while (!is_alive(p)) {
            p = (p + 1) % most_processes;
        }
        return p;
    }
    std::byte* at(std::size_t p, const shared_block& b) const {
        return processes_[p]->base() + b.id.offset;
    }
    // As the model of one process knows a block.
    block seen_by(std::size_t p, const shared_block& b) const {
        return {at(p, b), b.size, 64, b.seed, p};
    }
    holders::place pick_held(std::size_t p) { return all_.pick(p, in_.byte()); }

    void step() {
        const std::uint64_t what = in_.byte();
        if (live_count() == 0) {
            join(what % most_processes);
            return;
        }
        const std::size_t p = pick_process();
        switch (what % 24) {
            default:  // 0 to 5
                allocate(p, in_.size(16));
                break;
            case 6:
            case 7:
            case 8:
                if (auto it = pick_held(p); it != all_.none()) {
                    release(p, it);
                }
                break;
            case 9:
            case 10:
            case 11:
            case 12:
                send(p);
                break;
            case 13:
            case 14:
            case 15:
            case 16:
                receive(p);
                break;
            case 17:
                retain(p);
                break;
            case 18:
                reallocate(p);
                break;
            case 19:
                leave(p, in_.byte() % 2 == 0);
                break;
            case 20:
                for (std::size_t other = 0; other < most_processes; ++other) {
                    if (!is_alive(other)) {
                        join(other);
                        break;
                    }
                }
                break;
            case 21:
                reclaim(p, in_.byte() % 2 == 0);
                break;
            case 22:
                attach_wrongly(p);
                break;
            case 23:
                (void)processes_[p]->trim();
                break;
        }
    }

    void allocate(std::size_t p, std::uint64_t size) {
        if (all_.blocks.size() >= most_blocks) {
            return;
        }
        heap& h = *processes_[p];
        auto* address = static_cast<std::byte*>(h.allocate(size, 0, false));
        size = std::max<std::uint64_t>(size, 1);
        if (address == nullptr) {
            require(!h.refusal().empty(), "a refusal has a reason");
            if (size <= capacity / 2) {
                all_.reaped();
                require(h.stats().n_blocks == all_.blocks.size(),
                        "what the dead held is free before anybody is refused");
            }
            return;
        }
        shared_block b;
        std::uint64_t nbytes = 0;
        require(h.identify(address, b.id, nbytes) && nbytes == size, "a block can be identified");
        b.size = size;
        b.seed = ++seed_;
        b.references[p] = 1;
        all_.add(b);
        contents::write(seen_by(p, b));
    }

    void release(std::size_t p, holders::place it) {
        shared_block& b = it->second;
        require(contents::are_kept(seen_by(p, b), b.size), "a block keeps its contents");
        require(processes_[p]->deallocate(at(p, b)), "a reference can be given back");
        --b.references[p];
        if (b.references[p] == 0) {
            require(processes_[p]->size_of(at(p, b)) == 0, "without a reference it is unknown");
        }
        all_.drop_if_gone(it);
    }

    void retain(std::size_t p) {
        if (auto it = pick_held(p); it != all_.none()) {
            require(processes_[p]->retain(at(p, it->second)), "who has it may hold it again");
            ++it->second.references[p];
        }
    }

    void send(std::size_t p) {
        const auto it = pick_held(p);
        const unsigned readers = 1 + static_cast<unsigned>(in_.byte() % 3);
        if (it == all_.none() || all_.messages.size() >= most_messages) {
            return;
        }
        const auto sent = processes_[p]->send(at(p, it->second), readers);
        if (!sent) {
            require(sent.err().code == errc::no_memory &&
                        all_.flying() == processes_[p]->seg().geo().transit_count,
                    "only a full table refuses a message", sent.err().message);
            return;
        }
        all_.messages.push_back({it->second.id, *sent, readers, lives_[p]});
        ++it->second.messages;
    }

    // Any message, read before or not: its token serves as many readers as it was
    // made for, and after that whoever comes while somebody holds the block.
    void receive(std::size_t p) {
        if (all_.messages.empty()) {
            return;
        }
        message& m = all_.messages[in_.byte() % all_.messages.size()];
        const auto it = all_.find(m.id.serial);
        std::uint64_t nbytes = 0;
        const auto got = processes_[p]->attach(m.id, m.ticket, nbytes);
        if (!got) {
            require(got.err().code == errc::stale, "what is gone is stale", got.err().message);
            require(it == all_.none() || !it->second.is_held(), "what is held is not stale");
            if (it != all_.none()) {
                all_.blocks.erase(it);
            }
            return;
        }
        require(it != all_.none(), "what is gone is stale");
        shared_block& b = it->second;
        require(*got == at(p, b) && nbytes == b.size, "a message leads to its block");
        require(contents::are_kept(seen_by(p, b), b.size), "a message keeps the contents");
        ++b.references[p];
        if (m.readers != 0 && --m.readers == 0) {
            --b.messages;
        }
    }

    void reallocate(std::size_t p) {
        const auto it = pick_held(p);
        const std::uint64_t size = std::max<std::uint64_t>(in_.size(15), 1);
        if (it == all_.none() || it->second.references[p] != 1) {
            return;
        }
        const shared_block old = it->second;
        auto* address = static_cast<std::byte*>(processes_[p]->reallocate(at(p, old), size));
        if (address == nullptr) {
            require(contents::are_kept(seen_by(p, old), old.size), "a refusal leaves the block");
            return;
        }
        shared_block now = old;
        block moved = seen_by(p, old);
        moved.p = address;
        require(contents::are_kept(moved, std::min(old.size, size)), "the contents are kept");
        std::uint64_t nbytes = 0;
        require(processes_[p]->identify(address, now.id, nbytes) && nbytes == size,
                "a block can be identified");
        it->second.references[p] = 0;
        const bool others = it->second.is_held();
        require(!others || now.id.offset != old.id.offset, "what others hold is not resized");
        all_.drop_if_gone(it);
        all_.blocks.erase(now.id.serial);  // resized in its place, and the dead had it too
        now.size = size;
        now.seed = ++seed_;
        now.references = {};
        now.references[p] = 1;
        now.messages = now.dead = 0;
        all_.add(now);
        contents::write(seen_by(p, now));
    }

    void join(std::size_t p) {
        const bool alone = live_count() == 0;
        processes_[p] = process_of_its_own::open(in_file(file_->path(), open_mode::read_write));
        processes_[p]->set_purge(-1, ~std::uint64_t{0});
        lives_[p] = ++life_;
        if (alone && !lasting_) {  // this kernel cannot tell: all begins anew
            all_.blocks.clear();
            all_.messages.clear();
        }
        all_.reaped();
        inspect();
    }

    void leave(std::size_t p, bool by_death) {
        all_.left_by(p, by_death);
        if (by_death) {
            process_of_its_own::kill(processes_[p]);
        } else {
            processes_[p].reset();
        }
    }

    void reclaim(std::size_t p, bool at_once) {
        (void)processes_[p]->reclaim(at_once ? 0 : heap::default_grace_ms);
        all_.reaped();
        if (at_once) {
            all_.dropped_unless([this](std::uint64_t sender) {
                const auto life = std::find(lives_.begin(), lives_.end(), sender);
                return life != lives_.end() &&
                       is_alive(static_cast<std::size_t>(life - lives_.begin()));
            });
        }
    }

    // Numbers that are a little or entirely wrong.
    void attach_wrongly(std::size_t p) {
        if (all_.messages.empty()) {
            return;
        }
        message m = all_.messages[in_.byte() % all_.messages.size()];
        const message& other = all_.messages[in_.byte() % all_.messages.size()];
        switch (in_.byte() % 8) {
            case 0:
                m.id.offset += 64;
                break;
            case 1:
                m.id.offset = other.id.offset;
                break;
            case 2:
                m.id.serial += in_.number(1);
                break;
            case 3:
                m.id.serial = in_.number(8);
                break;
            case 4:
                m.id.record = static_cast<std::uint32_t>(in_.number(4));
                break;
            case 5:
                m.id.record = other.id.record;
                break;
            case 6:
                m.id.offset = in_.number(8);
                break;
            case 7:
                m.id = {};
                break;
        }
        m.ticket.serial ^= std::uint64_t{1} << 63;  // tickets that are right are another matter
        std::uint64_t nbytes = 0;
        const auto got = processes_[p]->attach(m.id, m.ticket, nbytes);
        const auto it = all_.find(m.id.serial);
        const bool right = it != all_.none() && it->second.id.offset == m.id.offset &&
                           it->second.id.record == m.id.record;
        if (!got) {
            require(got.err().code == errc::stale, "what is wrong is stale", got.err().message);
            require(!right || !it->second.is_held(), "what is held is not stale");
            return;
        }
        require(right, "wrong numbers lead nowhere");
        require(*got == at(p, it->second) && nbytes == it->second.size &&
                    contents::are_kept(seen_by(p, it->second), nbytes),
                "right numbers lead to their block");
        ++it->second.references[p];
    }

    void inspect() {
        std::uint64_t held = 0;
        for (const auto& [serial, b] : all_.blocks) {
            held += b.is_held() ? 1U : 0U;
        }
        for (std::size_t p = 0; p < most_processes; ++p) {
            if (!is_alive(p)) {
                continue;
            }
            heap& h = *processes_[p];
            const auto findings = h.check();
            require(findings.empty(), "the tables are sound",
                    findings.empty() ? std::string{} : findings.front());
            std::uint64_t own = 0;
            for (const auto& [serial, b] : all_.blocks) {
                require(!b.is_held() || contents::are_kept(seen_by(p, b), b.size),
                        "what somebody holds keeps its contents");
                require(h.size_of(at(p, b)) == (b.references[p] != 0 ? b.size : 0) || !b.is_held(),
                        "a process knows its own blocks");
                own += b.references[p] != 0 ? 1U : 0U;
            }
            const auto s = h.stats();
            require(h.live_blocks() == own, "live blocks are counted");
            require(s.n_blocks >= held && s.n_blocks <= all_.blocks.size(), "blocks are counted",
                    std::to_string(s.n_blocks));
            require(s.in_transit == all_.flying(), "messages are counted",
                    std::to_string(s.in_transit));
            require(s.processes == live_count(), "processes are counted",
                    std::to_string(s.processes));
        }
    }

    // All end, one way or the other; then somebody comes and looks.
    void finish() {
        for (std::size_t p = 0; p < most_processes; ++p) {
            if (is_alive(p)) {
                leave(p, p % 2 == 0);
            }
        }
        join(0);
        reclaim(0, true);
        const auto s = processes_[0]->stats();
        require(s.n_blocks == 0 && s.in_transit == 0 && s.allocated == 0,
                "nothing is left of the dead");
        inspect();
    }

    input in_;
    std::unique_ptr<memory_file> file_;
    bool lasting_ = false;
    std::array<std::shared_ptr<heap>, most_processes> processes_;
    std::array<std::uint64_t, most_processes> lives_{};
    std::uint64_t life_ = 0;
    std::uint64_t seed_ = 0;
    holders all_;
};

}  // namespace
}  // namespace ndarena::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ndarena::fuzz::session(ndarena::fuzz::input(data, size)).run();
    return 0;
}
