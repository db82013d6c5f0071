-- lib_claim: a call that is no save writes an entry into the occupancy of a stored record (lib_record).
--
-- claim_entry(rk, e)      e = {slot, kind, base, parts, kept}; nothing happens where the slot has an entry already
-- disclaim_entry(rk, slot)   take it out again
--
-- An entry whose slot begins with '+' is declared by no save; saves leave it in (commit.lua).
local function claim_entry(rk, e)
  local _, entries = stored_occupancy(rk)
  for i = 1, #entries do
    if entries[i][1] == e[1] then return end
  end
  entries[#entries + 1] = e
  occ_set(rk, entries)
end

local function disclaim_entry(rk, slot)
  local _, entries = stored_occupancy(rk)
  for i = 1, #entries do
    if entries[i][1] == slot then
      table.remove(entries, i)
      occ_set(rk, entries)
      return
    end
  end
end
